#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/relative_bias.h"
#include "models/testing/random_weights.h"
#include "models/testing/temp_dir.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// A language model with adaptive input and softmax, small: a few dozen tokens fill several windows.
inline nlohmann::json TinyLmJson() {
  return nlohmann::json::parse(R"json({
      "model_type": "eva_causal_lm", "vocab_size": 60, "padding_idx": 1, "hidden_size": 32,
      "intermediate_size": 40, "num_attention_heads": 2, "num_hidden_layers": 2,
      "normalize_before": true, "final_norm": false, "hidden_act": "relu", "layer_norm_eps": 1e-5,
      "embed_scale": "sqrt(hidden_size)", "positions": "sinusoidal", "max_target_positions": 96,
      "adaptive_input": true, "adaptive_cutoff": [20, 40], "adaptive_factor": 4,
      "tie_adaptive_weights": true, "tie_adaptive_proj": true, "share_input_output_embed": false,
      "attn": {"window_size": 16, "chunk_size": 4, "adaptive_proj": "qk", "overlap_window": false,
               "use_t5_rpe": true, "causal": true, "num_chunks": null}})json");
}

// One with ordinary embeddings and softmax, which has everything that the other does not have.
inline nlohmann::json TinyPlainLmJson() {
  nlohmann::json json = TinyLmJson();
  json.update({{"final_norm", true},
               {"hidden_act", "gelu"},
               {"adaptive_input", false},
               {"adaptive_cutoff", nullptr},
               {"share_input_output_embed", true}});
  json["attn"].update(
      {{"overlap_window", true}, {"adaptive_proj", "no-ln"}, {"use_t5_rpe", false}});
  return json;
}

// The dictionary of such a model: words "w4", "w5" and so on, named by their tokens.
inline std::string LmDictionary(int vocab_size) {
  std::string text;
  for (int i = 4; i < vocab_size; ++i) text += "w" + std::to_string(i) + " 1\n";
  return text;
}

// What such a config asks for, by name; the same config gets the same values.
class RandomLm : public RandomWeights {
 public:
  explicit RandomLm(const nlohmann::json& json) {
    const int64_t size = json.at("hidden_size"), mlp_size = json.at("intermediate_size");
    AddWords(json);
    for (int i = 0; i < json.at("num_hidden_layers"); ++i) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      AddAttention(layer + "self_attn.", json);
      AddNorm(layer + "self_attn_layer_norm.", size);
      AddLinear(layer + "fc1.", mlp_size, size);
      AddLinear(layer + "fc2.", size, mlp_size);
      AddNorm(layer + "final_layer_norm.", size);
    }
    if (json.at("final_norm")) AddNorm("layer_norm.", size);
  }

 private:
  void AddWords(const nlohmann::json& json) {
    const int64_t size = json.at("hidden_size"), vocab_size = json.at("vocab_size");
    const float deviation = 1.f / std::sqrt(static_cast<float>(size));
    if (!json.at("adaptive_input")) {
      Add("embed_tokens.weight", {vocab_size, size}, deviation);
      if (json.at("share_input_output_embed")) return;
      return Add("output_projection.weight", {vocab_size, size}, deviation);
    }
    std::vector<int64_t> ends = json.at("adaptive_cutoff");
    Add("adaptive_softmax.head.class_proj.weight", {std::ssize(ends), size}, deviation);
    ends.push_back(vocab_size);
    int64_t begin = 0, band_size = size;
    for (size_t i = 0; i < ends.size(); ++i) {
      const std::string band = "embed_tokens.embeddings." + std::to_string(i) + ".";
      Add(band + "0.weight", {ends[i] - begin, band_size}, 0.3f);
      Add(band + "1.weight", {size, band_size}, 0.3f);
      begin = ends[i];
      band_size /= json.at("adaptive_factor").get<int64_t>();
    }
  }

  void AddAttention(const std::string& prefix, const nlohmann::json& json) {
    const nlohmann::json& attn = json.at("attn");
    const int64_t size = json.at("hidden_size"), heads = json.at("num_attention_heads");
    for (const char* name : {"q_proj.", "k_proj.", "v_proj.", "out_proj."}) {
      AddLinear(prefix + name, size, size);
    }
    for (const char* map : {"adaptive_mu_q.", "adaptive_mu_k."}) {
      AddLinear(prefix + map + "0.", size / heads, size / heads);
      if (attn.at("adaptive_proj").get<std::string>() == "qk")
        AddNorm(prefix + map + "1.", size / heads);
    }
    if (attn.at("use_t5_rpe")) {
      const int window = attn.at("window_size");
      const int extension = attn.at("overlap_window") ? window : 0;
      const int buckets = T5BucketsFor(window, extension, /*is_causal=*/true).num_buckets;
      Add(prefix + "rel_pos_bias.relative_attention_bias.weight", {buckets, 1}, 0.5f);
    }
  }
};

// Writes a model directory that LoadModel() loads.
inline void WriteRandomLm(const std::filesystem::path& directory, const nlohmann::json& json) {
  RandomLm(json).Write(directory, json);
  WriteFile(directory / "dict.txt", LmDictionary(json.at("vocab_size")));
}

}  // namespace evaserve

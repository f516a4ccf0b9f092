#pragma once

#include <cstdint>
#include <string>

#include "models/testing/random_weights.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// A translation encoder, small: a few tokens fill several windows.
inline nlohmann::json TinyEncoderJson() {
  return nlohmann::json::parse(R"json({
      "model_type": "eva_encoder", "vocab_size": 40, "padding_idx": 1, "hidden_size": 16,
      "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2,
      "normalize_before": false, "hidden_act": "relu", "layer_norm_eps": 1e-5,
      "embed_scale": "sqrt(hidden_size)", "positions": "sinusoidal", "max_source_positions": 64,
      "attn": {"window_size": 4, "num_landmarks": 4, "overlap_window": true, "attn_2d": false,
               "adaptive_proj": "no-ln", "use_rpe": false, "use_t5_rpe": true}})json");
}

// A masked language model, which has everything that a translation encoder does not have.
inline nlohmann::json TinyMaskedLmJson() {
  nlohmann::json json = TinyEncoderJson();
  json.update({{"normalize_before", true},
               {"hidden_act", "gelu"},
               {"embed_scale", 1},
               {"positions", "learned"},
               {"layernorm_embedding", true},
               {"masked_lm_head", true}});
  json["attn"].update({{"overlap_window", false},
                       {"adaptive_proj", "default"},
                       {"use_rpe", true},
                       {"use_t5_rpe", false}});
  return json;
}

// The dict.txt of such a model: w0 to w34, which are the tokens 4 to 38. 39 is left for <mask>.
inline std::string TinyDictionary() {
  std::string lines;
  for (int i = 0; i < 35; ++i) lines += "w" + std::to_string(i) + " 1\n";
  return lines;
}

// What such a config asks for, by name; the same config gets the same values.
class RandomEncoder : public RandomWeights {
 public:
  explicit RandomEncoder(const nlohmann::json& json) {
    const int64_t size = json.at("hidden_size"), vocab_size = json.at("vocab_size");
    const int64_t padding = json.at("padding_idx"), mlp_size = json.at("intermediate_size");
    Add("embed_tokens.weight", {vocab_size, size}, 0.5f);
    if (json.at("positions").get<std::string>() == "learned") {
      const int64_t max_tokens = json.at("max_source_positions");
      Add("embed_positions.weight", {max_tokens + padding + 1, size}, 0.5f);
    }
    if (json.value("layernorm_embedding", false)) AddNorm("layernorm_embedding.", size);
    for (int i = 0; i < json.at("num_hidden_layers"); ++i) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      AddAttention(layer + "self_attn.attn.", json);
      AddNorm(layer + "self_attn_layer_norm.", size);
      AddLinear(layer + "fc1.", mlp_size, size);
      AddLinear(layer + "fc2.", size, mlp_size);
      AddNorm(layer + "final_layer_norm.", size);
    }
    if (json.at("normalize_before")) AddNorm("layer_norm.", size);
    if (!json.value("masked_lm_head", false)) return;
    AddLinear("lm_head.dense.", size, size);
    AddNorm("lm_head.layer_norm.", size);
    Add("lm_head.bias", {vocab_size}, 0.3f);
  }

 private:
  void AddAttention(const std::string& prefix, const nlohmann::json& json) {
    const nlohmann::json& attn = json.at("attn");
    const int64_t size = json.at("hidden_size"), heads = json.at("num_attention_heads");
    const int64_t window = attn.at("window_size");
    AddLinear(prefix + "qkv.", 3 * size, size);
    AddLinear(prefix + "proj.", size, size);
    for (const char* map : {"adaptive_mu_q.", "adaptive_mu_k."}) {
      AddLinear(prefix + map + "0.", size / heads, size / heads);
      if (attn.at("adaptive_proj").get<std::string>() == "default")
        AddNorm(prefix + map + "1.", size / heads);
    }
    const int64_t keys = attn.at("overlap_window") ? 2 * window : window;
    if (attn.at("use_rpe")) {
      Add(prefix + "local_relative_position_bias_table", {heads, window, keys}, 0.5f);
    }
    // Windows this small all have the least number of buckets.
    if (attn.at("use_t5_rpe")) {
      Add(prefix + "rel_pos_bias.relative_attention_bias.weight", {16, heads}, 0.5f);
    }
  }
};

}  // namespace evaserve

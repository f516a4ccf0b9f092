#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/eva_encoder/testing/random_encoder.h"
#include "models/testing/random_weights.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// A small translation model with two vocabularies of 40 words, special tokens included.
inline nlohmann::json TinyTranslationJson() {
  nlohmann::json json = nlohmann::json::parse(R"json({
      "model_type": "eva_translation", "share_decoder_input_output_embed": false,
      "decoder": {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 20,
                  "num_attention_heads": 3, "num_hidden_layers": 2, "normalize_before": false,
                  "hidden_act": "relu", "max_target_positions": 32,
                  "embed_scale": "sqrt(hidden_size)", "layernorm_embedding": false},
      "generation": {"beam_size": 4, "length_penalty": 0.6, "max_len_a": 1.5, "max_len_b": 5,
                     "no_repeat_ngram_size": 2},
      "tokenization": "space", "bpe": "none"})json");
  json["encoder"] = TinyEncoderJson();
  json["encoder"].erase("model_type");
  return json;
}

// One vocabulary, and one matrix for all that it is needed for.
inline nlohmann::json TinySharedTranslationJson() {
  nlohmann::json json = TinyTranslationJson();
  json["share_all_embeddings"] = json["share_decoder_input_output_embed"] = true;
  json["decoder"].update({{"hidden_size", 16}, {"num_attention_heads", 2}});
  return json;
}

// What fairseq prints for tokens: words, without <s> and </s>. `letter` is that of WriteModel().
inline std::string TextOf(const std::vector<int>& tokens, const std::string& letter) {
  std::string text;
  for (const int token : tokens) {
    if (token == 0 || token == 2) continue;
    if (!text.empty()) text += ' ';
    text += token == 1 ? "<pad>" : token == 3 ? "<unk>" : letter + std::to_string(token);
  }
  return text;
}

// What such a config asks for, by name; the same config gets the same values.
class RandomTranslation : public RandomWeights {
 public:
  explicit RandomTranslation(const nlohmann::json& json) : json_(json) {
    for (const auto& [name, tensor] : RandomEncoder(json.at("encoder"))) {
      insert_or_assign("encoder." + name, tensor);
    }
    const nlohmann::json& decoder = json.at("decoder");
    const int64_t size = decoder.at("hidden_size"), vocab_size = decoder.at("vocab_size");
    const bool ties_all = json.value("share_all_embeddings", false);
    if (!ties_all) Add("decoder.embed_tokens.weight", {vocab_size, size}, 0.5f);
    if (!ties_all && !json.value("share_decoder_input_output_embed", false)) {
      Add("decoder.output_projection.weight", {vocab_size, size}, 0.5f);
    }
    if (decoder.value("positions", "") == "learned") {
      const int64_t num_positions = decoder.at("max_target_positions");
      Add("decoder.embed_positions.weight", {num_positions + 2, size}, 0.5f);
    }
    if (decoder.value("layernorm_embedding", false)) AddNorm("decoder.layernorm_embedding.", size);
    for (int i = 0; i < decoder.at("num_hidden_layers"); ++i) {
      AddLayer("decoder.layers." + std::to_string(i) + ".", decoder,
               json.at("encoder").at("hidden_size"));
    }
    if (decoder.value("normalize_before", false)) AddNorm("decoder.layer_norm.", size);
  }

  // Multiplies the row that the logit of </s> comes from: how soon translations end.
  void ScaleEos(float factor) {
    for (const char* name : {"decoder.output_projection.weight", "decoder.embed_tokens.weight",
                             "encoder.embed_tokens.weight"}) {
      const auto found = find(name);
      if (found == end()) continue;
      RandomTensor& words = found->second;
      const int64_t size = words.shape[1];
      for (float& value : std::span(words.values).subspan(2 * size, size)) value *= factor;
      return;
    }
  }

  // Writes the directory: words are e4, e5, ... and d4, d5, ..., or w4, ... for both, by their
  // tokens.
  void WriteModel(const std::filesystem::path& directory) const {
    Write(directory, json_);
    const bool is_one = json_.value("share_all_embeddings", false);
    WriteWords(directory / "dict.en.txt", is_one ? "w" : "e", json_.at("encoder"));
    WriteWords(directory / "dict.de.txt", is_one ? "w" : "d", json_.at("decoder"));
  }

 private:
  static void WriteWords(const std::filesystem::path& file, const std::string& letter,
                         const nlohmann::json& part) {
    std::string words;
    for (int i = 4; i < part.at("vocab_size"); ++i) words += letter + std::to_string(i) + " 1\n";
    WriteFile(file, words);
  }

  void AddLayer(const std::string& layer, const nlohmann::json& decoder, int64_t encoder_size) {
    const int64_t size = decoder.at("hidden_size"), mlp_size = decoder.at("intermediate_size");
    for (const char* name : {"q_proj.", "k_proj.", "v_proj.", "out_proj."}) {
      const bool is_of_source = name[0] == 'k' || name[0] == 'v';
      AddLinear(layer + "self_attn." + name, size, size);
      AddLinear(layer + "encoder_attn." + name, size, is_of_source ? encoder_size : size);
    }
    for (const char* name :
         {"self_attn_layer_norm.", "encoder_attn_layer_norm.", "final_layer_norm."}) {
      AddNorm(layer + name, size);
    }
    AddLinear(layer + "fc1.", mlp_size, size);
    AddLinear(layer + "fc2.", size, mlp_size);
  }

  const nlohmann::json json_;
};

}  // namespace evaserve

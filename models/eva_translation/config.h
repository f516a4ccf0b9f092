#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "models/eva_encoder/config.h"
#include "nlohmann/json.hpp"

namespace evaserve {

struct TranslationDecoderConfig {
  int vocab_size = 0;
  int size = 0;      // of a token, a multiple of num_heads
  int mlp_size = 0;  // of the hidden layer
  int num_heads = 0;
  int num_layers = 0;
  int max_tokens = 0;  // of a translation, </s> at its begin included: max_target_positions
  bool normalizes_before = false;
  Activation activation = Activation::kRelu;
  float norm_eps = 1e-5f;
  float embed_scale = 1;
  bool has_learned_positions = false;
  bool has_embedding_norm = false;

  int head_dim() const { return size / num_heads; }
};

// How a translation is searched for, where a request does not say it. The longest has max_len_a *
// (tokens of the source, </s> included) + max_len_b tokens.
struct TranslationSearchConfig {
  int beam_size = 5;
  double length_penalty = 1;
  double unk_penalty = 0;
  double max_len_a = 0;
  int max_len_b = 200;
  int min_len = 1;
  int no_repeat_ngram_size = 0;  // 0: none
};

enum class Tokenization { kMoses, kSpace };

// How text becomes words and back.
struct TranslationTextConfig {
  Tokenization tokenization = Tokenization::kMoses;
  std::string source_lang, target_lang;  // as the dictionaries' names have them: "en", "de"
  bool splits_hyphens = false;           // of Moses's tokens
  bool has_bpe = true;                   // bpe.codes
};

struct EvaTranslationConfig {
  EvaEncoderConfig encoder;
  TranslationDecoderConfig decoder;
  bool ties_all_embeddings = false;  // both vocabularies are one
  bool ties_output = false;          // the output matrix is the decoder's embeddings
  TranslationSearchConfig search;
  TranslationTextConfig text;
  DType dtype = DType::kFloat32;
};

// Requests and configurations keep to these.
inline constexpr int kMaxBeamSize = 64;
inline constexpr double kMaxLengthPenalty = 10;

// InvalidArgument, naming the file and the key. `dtype` counts before the file's.
absl::StatusOr<EvaTranslationConfig> ReadEvaTranslationConfig(const std::filesystem::path& file,
                                                              const nlohmann::json& json,
                                                              std::optional<DType> dtype);

}  // namespace evaserve

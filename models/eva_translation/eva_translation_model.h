#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "models/tensor_model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// The paper's translation models ("model_type": "eva_translation"): fairseq's transformer with 1-D
// EVA in its encoder, text to text.
//
//   text_input      BYTES [n, 1]            UTF-8; n at most 256, 32768 bytes each
//   beam_size       INT32 [n, 1]  optional  1 to 64; absent: the config's
//   length_penalty  FP32  [n, 1]  optional  -10 to 10; scores are divided by length ^ this
//   max_tokens      INT32 [n, 1]  optional  of the translation, byte pairs counted
//
//   text_output  BYTES [n, 1]
//   score        FP32  [n, 1]  log-probability of the translation, </s> included, divided as above;
//                              minus infinity and no text if the network's numbers overflow
//
// A row is what it is alone, to the bit, whatever is decoded beside it.
//
// `config` is the directory's config.json:
//
//   {"model_type": "eva_translation", "torch_dtype": "float32",
//    "encoder": {what eva_encoder/eva_encoder_model.h shows, without model_type},
//    "decoder": {"vocab_size": 32768, "hidden_size": 512, "intermediate_size": 2048,
//                "num_attention_heads": 8, "num_hidden_layers": 6, "normalize_before": false,
//                "hidden_act": "relu", "layer_norm_eps": 1e-5, "embed_scale": "sqrt(hidden_size)",
//                "positions": "sinusoidal" or "learned", "max_target_positions": 1024,
//                "layernorm_embedding": false},
//    "share_decoder_input_output_embed": true, "share_all_embeddings": true,
//    "source_lang": "en", "target_lang": "de", "tokenization": "moses" or "space",
//    "split_hyphens": false, "bpe": "subword_nmt" or "none",
//    "generation": {"beam_size": 5, "length_penalty": 1, "unk_penalty": 0, "max_len_a": 0,
//                   "max_len_b": 200, "min_len": 1, "no_repeat_ngram_size": 0}}
//
// Tensors are fairseq's, beginning with "encoder." and "decoder."; the other files are those of
// TranslationText::Load(). Errors are LoadModel()'s.
//
// Source: "Efficient Attention via Control Variates" (arXiv 2302.04542), section 5, in the form of
// its published code.
absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaTranslationModel(
    const std::filesystem::path& directory, const nlohmann::json& config,
    const LoadOptions& options, WorkerPool& workers);

}  // namespace evaserve

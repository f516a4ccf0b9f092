#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "models/tensor_model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// The encoder of the paper's translation models and of its masked language models ("model_type":
// "eva_encoder"): fairseq's transformer with 1-D EVA attention, of tokens as numbers.
//
//   input_ids  INT64 [n, tokens]
//   lengths    INT64 [n]  optional: tokens of each row, whose rest is not read; absent: all
//
//   last_hidden_state  FP32 [n, longest, hidden_size]  rows end in zeros
//   embedding          FP32 [n, hidden_size]           the mean over a row's tokens
//
// With a masked-LM head also
//
//   mask_positions  INT64 [n, masks]  optional: where to guess, -1: none; absent: the mask tokens
//   top_k           INT32 [n, 1]      optional: guesses for each mask; absent: 5
//
//   logits        FP32 [n, longest, vocab_size]  rows end in zeros
//   top_tokens    INT64 [n, masks, guesses]      most likely first; -1 for none
//   top_logprobs  FP32 [n, masks, guesses]       -infinity for none
//
// and if there is a dictionary too (masked_text.h)
//
//   text_input  BYTES [n, 1]  instead of input_ids, lengths and mask_positions: text with <mask>
//
//   top_words   BYTES [n, masks, guesses]  empty for none
//
// A row is what it is alone: its windows, chunks and positions are those of its own length. (The
// published code pads a batch first, and then results depend on its longest row.)
//
// `config` is the directory's config.json:
//
//   {"model_type": "eva_encoder", "vocab_size": 32000, "padding_idx": 1, "hidden_size": 512,
//    "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 6,
//    "normalize_before": false, "hidden_act": "relu", "layer_norm_eps": 1e-5,
//    "embed_scale": "sqrt(hidden_size)", "positions": "sinusoidal", "max_source_positions": 1024,
//    "layernorm_embedding": false, "masked_lm_head": false, "mask_token_id": null, "bpe": "none",
//    "attn": {"window_size": 16, "num_landmarks": 8, "adaptive_proj": "no-ln",
//    "overlap_window": true, "use_rpe": false, "use_t5_rpe": true, "attn_2d": false},
//    "torch_dtype": "float32"}
//
// Errors are LoadModel()'s.
//
// Source: "Efficient Attention via Control Variates" (arXiv 2302.04542), section 5, in
// the form of its published code.
absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaEncoderModel(
    const std::filesystem::path& directory, const nlohmann::json& config,
    const LoadOptions& options, WorkerPool& workers);

}  // namespace evaserve

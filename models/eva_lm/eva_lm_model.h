#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "models/model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// The paper's language models ("model_type": "eva_causal_lm"): fairseq's transformer_lm with causal
// EVA attention over words, as trained on WikiText-103. `directory` has the words in dict.txt
// (text/dictionary.h).
//
// `config` is the directory's config.json:
//
//   {"model_type": "eva_causal_lm", "vocab_size": 267744, "padding_idx": 1, "hidden_size": 1024,
//    "intermediate_size": 4096, "num_attention_heads": 8, "num_hidden_layers": 16,
//    "normalize_before": true, "final_norm": false, "hidden_act": "relu", "layer_norm_eps": 1e-5,
//    "embed_scale": "sqrt(hidden_size)", "positions": "sinusoidal", "max_target_positions": 512,
//    "adaptive_input": true, "adaptive_cutoff": [20000, 60000], "adaptive_factor": 4,
//    "tie_adaptive_weights": true, "tie_adaptive_proj": true, "share_input_output_embed": false,
//    "attn": {"window_size": 128, "chunk_size": 8, "adaptive_proj": "qk", "overlap_window": false,
//    "use_t5_rpe": true, "causal": true, "num_chunks": null}, "bos_token_id": 2,
//    "eos_token_id": 2, "torch_dtype": "float32"}
//
// A sequence's results are the same to the bit however it is cut into steps and whatever runs
// beside it. Its state is one page. Errors are LoadModel()'s.
//
// Source: "Efficient Attention via Control Variates" (arXiv 2302.04542), section 5, in the form of
// its published code.
absl::StatusOr<std::unique_ptr<Model>> LoadEvaLmModel(const std::filesystem::path& directory,
                                                      const nlohmann::json& config,
                                                      const LoadOptions& options,
                                                      WorkerPool& workers);

}  // namespace evaserve

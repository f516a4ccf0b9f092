#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/serial_worker_pool.h"
#include "models/model.h"

namespace evaserve {

// Loads a model on one thread; aborts with the error if that fails. The pool outlives the model.
struct LoadedModel {
  explicit LoadedModel(const std::filesystem::path& directory, const LoadOptions& options = {});

  std::unique_ptr<SerialWorkerPool> workers;
  std::unique_ptr<Model> model;
};

// How many tokens the next step takes when `num_done` of the sequence's tokens are done. A step
// never takes more than are left or than the window holds.
using CutRule = std::function<int(int64_t num_done)>;

CutRule WholeWindows();
CutRule OneByOne();

// What the model says after each token.
struct Outputs {
  std::vector<float> hidden;  // [num_tokens, hidden_size]
  std::vector<float> logits;  // [num_tokens, num_pred_heads, vocab_size]
};

// Feeds `tokens` to a new sequence in pieces. Aborts on an error.
Outputs RunTokens(Model& model, std::span<const TokenId> tokens, const CutRule& cut);

// Feeds `prompt` and returns what the sampler draws after it, up to `num_tokens` or an
// end-of-sequence token, which is included. Aborts on an error.
std::vector<TokenId> Generate(Model& model, std::span<const TokenId> prompt, int64_t num_tokens,
                              SamplingParams params);

}  // namespace evaserve

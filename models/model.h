#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "kernels/worker_pool.h"
#include "models/device.h"
#include "models/package/package_options.h"
#include "models/sampler.h"
#include "models/tokenizer.h"

namespace evaserve {

struct ModelInfo {
  std::string architecture;  // "evabyte"
  DType dtype = DType::kFloat32;
  std::string device = "cpu";  // "cuda:0 NVIDIA H200"
  int vocab_size = 0;
  int hidden_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_pred_heads = 1;
  int window = 0;           // tokens
  int chunk = 0;            // tokens
  int64_t max_seq_len = 0;  // tokens, prompt and answer together
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;  // in memory
  std::vector<TokenId> eos_tokens;
  SamplingParams default_sampling;  // from generation_config.json where it says so
};

// The memory that all sequences of a model share, in pages over all layers.
struct StatePool {
  int64_t page_bytes = 0;
  int total_pages = 0;
  int free_pages = 0;
};

// One sequence's state inside a model. Destroying it frees its memory; do so while the model lives
// and on the thread that calls Step().
class Sequence {
 public:
  virtual ~Sequence() = default;

  // Tokens that the state has seen.
  virtual int64_t length() const = 0;
};

// What one sequence does in a step.
struct StepItem {
  Sequence* sequence = nullptr;
  std::span<const TokenId> tokens = {};  // at least 1; never past Model::TokensToBoundary()

  // What to compute, any of:
  Sampler* sampler = nullptr;             // draw the token after the last one
  std::span<const TokenId> targets = {};  // as many as tokens, or none: the log-probability of
                                          // targets[i] after tokens[i]
  bool sum_hidden = false;                // the sum of the final hidden states of `tokens`
  bool all_hidden = false;                // each of them
  bool all_logits = false;                // every prediction head's logits after every token
};

struct StepResult {
  std::optional<SampledToken> sampled;
  std::vector<float> target_logprobs;  // [tokens], natural log
  std::vector<float> hidden_sum;       // [hidden_size]
  std::vector<float> hidden;           // [tokens, hidden_size]
  std::vector<float> logits;           // [tokens, num_pred_heads, vocab_size]
};

// A loaded model. Not thread-safe: one caller at a time, except info() and tokenizer().
class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelInfo& info() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;

  virtual std::unique_ptr<Sequence> NewSequence() = 0;

  // How many tokens the sequence can take before a step must end (its window or itself is full).
  virtual int TokensToBoundary(const Sequence& sequence) const = 0;

  // The most pages that a sequence holds on its way to `length` tokens.
  virtual int PagesFor(int64_t length) const = 0;
  virtual StatePool state_pool() const = 0;

  // Makes room for the sequence's next `num_tokens` tokens, at most TokensToBoundary().
  // ResourceExhausted if the pool is empty; then the sequence is unchanged.
  virtual absl::Status Reserve(Sequence& sequence, int num_tokens) = 0;

  // Advances every sequence by its tokens. Results are in the order of `items`.
  //
  // Sequences do not influence each other: running one alone gives the same results as running it
  // in a batch (on the CPU to the bit, on a device within rounding), and a prompt in pieces the
  // same as token by token within the tolerance in docs/numerics.md.
  //
  // Errors: InvalidArgument for a token outside [0, vocab_size), a step across a boundary, a
  // sequence past max_seq_len, or the same sequence twice; FailedPrecondition without a
  // reservation; ResourceExhausted if memory for the step is missing; Unavailable if the device is
  // lost, and with it the model. After any error the sequences are unchanged.
  virtual absl::StatusOr<std::vector<StepResult>> Step(std::span<const StepItem> items) = 0;
};

struct LoadOptions {
  std::optional<DType> dtype = {};  // absent: what config.json says (torch_dtype)
  int64_t state_bytes = 1ll << 30;  // memory of the state pool; the CPU's is touched as it is used
  Device device = {};
  PackageOptions packages = {};
};

// Loads a model directory in Hugging Face layout (config.json, model.safetensors or shards with an
// index, generation_config.json). `pool` runs the model's kernels and must outlive it.
//
// Errors name the file and the tensor or key: NotFound for a missing file, InvalidArgument for one
// that is malformed, does not fit the config, is not for the device or is a TensorModel's
// (tensor_model.h), Unimplemented for an unknown architecture or a device that this build does not
// know.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::filesystem::path& directory,
                                                 const LoadOptions& options, WorkerPool& pool);

}  // namespace evaserve

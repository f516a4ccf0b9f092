#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/evabyte/step_batch.h"
#include "models/page_pool.h"

namespace evaserve {

// Where an EvaByte model runs: its weights, its pages and its arithmetic. Not thread-safe.
//
// Source: the released EvaByte code, https://github.com/OpenEvaByte/evabyte.
class EvaByteBackend {
 public:
  virtual ~EvaByteBackend() = default;

  virtual std::string device() const = 0;  // see ModelInfo

  // Of the pages that batches name.
  virtual PageAllocator& pages() = 0;
  virtual bool summarizes_early() const = 0;  // see EvaByteGeometry
  virtual int64_t num_parameters() const = 0;
  virtual int64_t weight_bytes() const = 0;  // in memory

  // Runs the rows of a batch through all layers: stores the new tokens' keys and values, and folds
  // full windows.
  virtual absl::Status Run(const StepBatch& batch) = 0;

  // Of some rows of the last Run(), in float32 on the host, valid until the next call.
  struct Outputs {
    const float* hidden = nullptr;  // [rows, hidden_size], after the final norm; if asked for
    const float* logits = nullptr;  // [num_logit_rows, vocab_size], of the next token
  };
  // The first num_logit_rows of `rows` pass the output matrix too. Without wants_hidden, hidden may
  // be null.
  virtual absl::StatusOr<Outputs> ComputeOutputs(std::span<const int> rows, int num_logit_rows,
                                                 bool wants_hidden) = 0;

  // Every prediction head's logits of `count` rows of the last ComputeOutputs(), from its row
  // `begin` on: [count, num_pred_heads, vocab_size].
  virtual absl::Status ComputeAllLogits(int begin, int count, float* logits) = 0;
};

}  // namespace evaserve

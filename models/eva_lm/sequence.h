#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/lazy_memory.h"
#include "models/page_pool.h"
#include "models/step_check.h"

namespace evaserve {

// The states of all sequences of a model, a page each: it holds a sequence up to the model's limit,
// which for these models is some hundred tokens, and takes real memory as it is written.
class EvaLmStates {
 public:
  // InvalidArgument if state_bytes are less than one page; ResourceExhausted if the system has no
  // address space left.
  static absl::StatusOr<std::unique_ptr<EvaLmStates>> Create(int64_t state_floats,
                                                             int64_t state_bytes);

  PageAllocator& pages() { return pages_; }
  float* page(int32_t index) const {
    return reinterpret_cast<float*>(memory_.data() + index * pages_.state().page_bytes);
  }

 private:
  EvaLmStates(LazyMemory memory, const PageAllocator::Options& options)
      : memory_(std::move(memory)), pages_(options) {}

  const LazyMemory memory_;  // [num_pages][page_bytes]
  PageAllocator pages_;
};

// The state of one sequence. Returns its page to the pool when it goes.
class EvaLmSequence final : public CheckedSequence {
 public:
  explicit EvaLmSequence(EvaLmStates& states) : states_(states) {}
  EvaLmSequence(const EvaLmSequence&) = delete;
  EvaLmSequence& operator=(const EvaLmSequence&) = delete;
  ~EvaLmSequence() override;

  // ResourceExhausted, and nothing taken, if it has no page and none is free.
  absl::Status Reserve();
  bool HasRoomFor(int num_tokens) const override { return page_.has_value(); }

  // After Reserve().
  float* state() const { return states_.page(*page_); }

 private:
  EvaLmStates& states_;
  std::optional<int32_t> page_;
};

}  // namespace evaserve

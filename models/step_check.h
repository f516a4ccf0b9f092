#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "models/model.h"

namespace evaserve {

// A sequence whose steps ValidateStep() checks.
class CheckedSequence : public Sequence {
 public:
  int64_t length() const final { return length_; }
  void Advance(int num_tokens) { length_ += num_tokens; }

  // Whether memory for so many more tokens is reserved.
  virtual bool HasRoomFor(int num_tokens) const = 0;

  // Remembers the step that the sequence takes part in; false if it does so already.
  bool Join(uint64_t step) { return std::exchange(step_, step) != step; }

 private:
  int64_t length_ = 0;
  uint64_t step_ = 0;
};

struct StepLimits {
  int vocab_size = 0;
  int64_t max_seq_len = 0;
  int window = 0;  // a step must not cross the end of one; 0: it may
};

// Whether a step may run, by the rules of Model::Step(). Every sequence is a CheckedSequence.
// `step` is a number that no step of theirs had before, and not 0.
absl::Status ValidateStep(std::span<const StepItem> items, const StepLimits& limits, uint64_t step);

}  // namespace evaserve

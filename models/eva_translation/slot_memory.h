#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "models/lazy_memory.h"
#include "models/model.h"

namespace evaserve {

// Numbered slots, each with a row of floats in every layer. A slot takes real memory when it is
// first written, until it is given back. Not thread-safe but for state().
class SlotMemory {
 public:
  struct Options {
    int num_slots = 0;
    int num_layers = 0;
    int row_floats = 0;
  };

  // ResourceExhausted if the system has no address space left.
  static absl::StatusOr<std::unique_ptr<SlotMemory>> Create(const Options& options);

  int num_slots() const { return options_.num_slots; }

  float* layer(int index) const;  // [num_slots, row_floats]

  // That slots before `end` will be written.
  void Use(int end);
  // Slots before this may have been written since they were given back.
  int end() const { return end_; }

  // Gives back the memory of the slots from `begin` on, but for what shares a page of the system's
  // with others. What they held is lost.
  void GiveBack(int begin);

  // A page is a slot; those before end() are not free.
  StatePool state() const;

 private:
  SlotMemory(const Options& options, LazyMemory memory)
      : options_(options), memory_(std::move(memory)) {}

  int64_t row_bytes() const { return int64_t{options_.row_floats} * sizeof(float); }

  const Options options_;
  LazyMemory memory_;  // [num_layers][num_slots][row_floats]
  std::atomic<int> end_ = 0;
};

}  // namespace evaserve

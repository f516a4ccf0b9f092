#include "models/eva_translation/slot_memory.h"

#include <algorithm>

namespace evaserve {

absl::StatusOr<std::unique_ptr<SlotMemory>> SlotMemory::Create(const Options& options) {
  const int64_t floats = int64_t{options.num_layers} * options.num_slots * options.row_floats;
  absl::StatusOr<LazyMemory> memory =
      LazyMemory::Create(floats * static_cast<int64_t>(sizeof(float)));
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<SlotMemory>(new SlotMemory(options, *std::move(memory)));
}

float* SlotMemory::layer(int index) const {
  return reinterpret_cast<float*>(memory_.data()) +
         int64_t{index} * options_.num_slots * options_.row_floats;
}

void SlotMemory::Use(int end) { end_ = std::max<int>(end_, end); }

void SlotMemory::GiveBack(int begin) {
  const int end = end_;
  if (begin >= end) return;
  for (int64_t i = 0; i < options_.num_layers; ++i) {
    memory_.GiveBack((i * options_.num_slots + begin) * row_bytes(), (end - begin) * row_bytes());
  }
  end_ = begin;
}

StatePool SlotMemory::state() const {
  return {.page_bytes = options_.num_layers * row_bytes(),
          .total_pages = options_.num_slots,
          .free_pages = options_.num_slots - end_};
}

}  // namespace evaserve

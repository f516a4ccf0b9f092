#include "models/eva_lm/sequence.h"

#include <utility>

namespace evaserve {

absl::StatusOr<std::unique_ptr<EvaLmStates>> EvaLmStates::Create(int64_t state_floats,
                                                                 int64_t state_bytes) {
  constexpr int64_t kAlignment = 64;
  const int64_t bytes = state_floats * static_cast<int64_t>(sizeof(float));
  const int64_t page_bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const absl::StatusOr<int> num_pages = NumPages(state_bytes, page_bytes);
  if (!num_pages.ok()) return num_pages.status();
  absl::StatusOr<LazyMemory> memory = LazyMemory::Create(*num_pages * page_bytes);
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<EvaLmStates>(new EvaLmStates(
      *std::move(memory), {.num_pages = *num_pages, .page_slots = 1, .page_bytes = page_bytes}));
}

EvaLmSequence::~EvaLmSequence() {
  if (page_) states_.pages().Free(*page_);
}

absl::Status EvaLmSequence::Reserve() {
  if (page_) return absl::OkStatus();
  if (states_.pages().num_free() == 0) {
    return absl::ResourceExhaustedError("state pool: 1 page is needed and 0 are free");
  }
  page_ = states_.pages().Take();
  return absl::OkStatus();
}

}  // namespace evaserve

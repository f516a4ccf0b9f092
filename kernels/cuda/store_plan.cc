#include "kernels/cuda/store_plan.h"

#include <algorithm>

namespace evaserve {

std::vector<CudaChunk> PlanStoreChunks(std::span<const CudaStoreSequence> sequences, int chunk) {
  std::vector<CudaChunk> chunks;
  for (const CudaStoreSequence& from : sequences) {
    const int end = from.slot_begin + from.num_tokens;
    for (int slot = from.slot_begin; slot < end;) {
      const int index = slot / chunk, chunk_end = (index + 1) * chunk;
      CudaChunk& to = chunks.emplace_back();
      to.token = from.token_begin + slot - from.slot_begin;
      to.num_tokens = std::min(chunk_end, end) - slot;
      to.page = from.window_pages[slot / kCudaPageSlots];
      to.slot = slot % kCudaPageSlots;
      to.chunk_begin = index * chunk % kCudaPageSlots;
      if (from.summarize && chunk_end <= end) {
        const int summary = from.summary_begin + index;
        to.summary_page = from.summary_pages[summary / kCudaPageSlots];
        to.summary_slot = summary % kCudaPageSlots;
      }
      slot += to.num_tokens;
    }
  }
  return chunks;
}

}  // namespace evaserve

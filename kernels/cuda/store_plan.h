#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/store_chunks_args.h"
#include "kernels/page_layout.h"

namespace evaserve {

// One sequence's new tokens: consecutive rows of q, k and v for consecutive window slots. Page
// lists are of pages of kCudaPageSlots slots.
struct CudaStoreSequence {
  int token_begin = 0;  // row of its first token
  int num_tokens = 0;
  PageList window_pages;
  int slot_begin = 0;     // window slot of its first token
  bool summarize = true;  // false for a tree of guesses: its slots are not final
  PageList summary_pages;
  int summary_begin = 0;  // summary slot of the window's chunk 0
};

// Cuts the tokens of each sequence where chunks end, in order. The piece that completes a chunk
// gets the chunk's summary slot. `chunk` divides kCudaPageSlots.
std::vector<CudaChunk> PlanStoreChunks(std::span<const CudaStoreSequence> sequences, int chunk);

}  // namespace evaserve

#pragma once

// What the kernel of store_chunks.cuh gets: plain structs, on the host and on the device.

#include <cstdint>

#include "kernels/cuda/page_image.h"

namespace evaserve {

// New tokens of one sequence that lie in one chunk, hence in one page.
struct CudaChunk {
  int32_t token = 0;  // row of the first in q, k, v and positions
  int32_t num_tokens = 0;
  int32_t page = 0;
  int32_t slot = 0;           // of the first token, in the page
  int32_t chunk_begin = 0;    // slot of the chunk's first token, in the page
  int32_t summary_page = -1;  // where the chunk's summary goes; -1: it is not complete yet
  int32_t summary_slot = 0;   // in that page
};

struct StoreChunksArgs {
  const CudaChunk* chunks = nullptr;
  int num_chunks = 0;
  int num_heads = 0;
  int chunk = 0;  // tokens in a chunk, divides kCudaPageSlots
  char* pool = nullptr;
  int64_t page_bytes = 0;
  void* q = nullptr;  // [num_tokens, num_heads, head_dim], rotated in place
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t token_stride = 0;            // elements between two tokens of q, k and v; a multiple of 4
  const int32_t* positions = nullptr;  // [num_tokens]
  const float* cos = nullptr;          // [num_positions, head_dim / 2]
  const float* sin = nullptr;
  const float* mu = nullptr;   // [num_heads, head_dim]
  const float* phi = nullptr;  // the same
  float scale = 0.f;           // usually 1 / sqrt(head_dim)
};

}  // namespace evaserve

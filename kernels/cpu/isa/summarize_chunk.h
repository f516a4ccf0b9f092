#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/slots.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

struct SummarizeScratch {
  float* keys;           // [head_dim, padded_chunk]: dimensions of all tokens of the chunk
  float* key_weights;    // [padded_chunk]: logits, then weights
  float* value_weights;  // the same
  float* key;            // [head_dim]
  float* value;          // [padded_head_dim]
};

inline int PaddedChunk(const SummarizeChunks& args) {
  return (args.chunk + kLanes - 1) / kLanes * kLanes;
}

inline size_t LayOut(const SummarizeChunks& args, char* base, SummarizeScratch& s) {
  size_t used = 0;
  const auto take = [&](int64_t count) {
    char* begin = base + used;
    used += (count * 4 + 63) / 64 * 64;
    return reinterpret_cast<float*>(begin);
  };
  s.keys = take(int64_t{args.head_dim} * PaddedChunk(args));
  s.key_weights = take(PaddedChunk(args));
  s.value_weights = take(PaddedChunk(args));
  s.key = take(args.head_dim);
  s.value = take(args.padded_head_dim);
  return used;
}

// The part of a chunk that lies in one page.
struct Segment {
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
  int slot = 0;   // in the page
  int token = 0;  // in the chunk
  int count = 0;
};

template <typename Fn>
EVASERVE_INLINE void ForEachSegment(const SummarizeChunks& args, int chunk_index, Fn&& fn) {
  for (int token = 0; token < args.chunk;) {
    const int64_t slot = int64_t{chunk_index} * args.chunk + token;
    const int in_page = static_cast<int>(slot % kTileColumns);
    const int left = args.chunk - token;
    const int room = kTileColumns - in_page;
    const std::byte* keys = args.keys + args.window_pages[slot / kTileColumns] * args.page_bytes;
    const int count = left < room ? left : room;
    fn(Segment{keys, keys + args.key_bytes, in_page, token, count});
    token += count;
  }
}

inline void CopyUnits(const float* from, int count, float* to) {
  for (int i = 0; i < count; i += kLanes) {
    StorePartial(to + i, LoadPartial(from + i, count - i), count - i);
  }
}

inline void CopyBFloat16Units(const float* from, int count, float* low, float* high) {
  for (int i = 0; i < count; i += kLanes) {
    const Vec pairs = LoadPartial(from + i, count - i);
    StorePartial(low + i, LowBFloat16(pairs), count - i);
    StorePartial(high + i, HighBFloat16(pairs), count - i);
  }
}

// The keys of a chunk as float32, zero in the padding.
inline void GatherKeys(const SummarizeChunks& args, int chunk_index, float* keys) {
  const int padded = PaddedChunk(args);
  for (int64_t i = 0; padded != args.chunk && i < int64_t{args.head_dim} * padded; ++i) keys[i] = 0;
  ForEachSegment(args, chunk_index, [&](const Segment& segment) {
    const float* from = reinterpret_cast<const float*>(segment.keys) + segment.slot;
    for (int d = 0; d < args.head_dim; d += args.is_bfloat16 ? 2 : 1) {
      float* to = keys + int64_t{d} * padded + segment.token;
      if (args.is_bfloat16) {
        CopyBFloat16Units(from + d / 2 * kTileColumns, segment.count, to, to + padded);
      } else {
        CopyUnits(from + d * kTileColumns, segment.count, to);
      }
    }
  });
}

// Logits in base 2 become weights that sum to 1; the padding gets 0.
inline void Softmax(float* x, int count, int padded) {
  for (int i = count; i < padded; ++i) x[i] = -1e30f;
  Vec max = Broadcast(-1e30f);
  for (int i = 0; i < padded; i += kLanes) max = Max(max, Load(x + i));
  const Vec m = Broadcast(ReduceMax(max));
  Vec sum = {};
  for (int i = 0; i < padded; i += kLanes) {
    const Vec e = Exp2<false>(Load(x + i) - m);
    Store(x + i, e);
    sum += e;
  }
  const Vec inverse = Broadcast(1.f / ReduceAdd(sum));
  for (int i = 0; i < padded; i += kLanes) Store(x + i, Load(x + i) * inverse);
}

inline void ChunkWeights(const SummarizeChunks& args, const SummarizeScratch& s) {
  const int padded = PaddedChunk(args);
  const Vec log2e = Broadcast(1.44269504f);
  const Vec half = Broadcast(-0.5f);
  const Vec scale = Broadcast(args.scale * 1.44269504f);
  for (int i = 0; i < padded; i += kLanes) {
    Vec mu_k = {}, phi_k = {}, k_k = {};
    for (int d = 0; d < args.head_dim; ++d) {
      const Vec k = Load(s.keys + int64_t{d} * padded + i);
      mu_k = Fma(Broadcast(args.mu[d]), k, mu_k);
      phi_k = Fma(Broadcast(args.phi[d]), k, phi_k);
      k_k = Fma(k, k, k_k);
    }
    Store(s.key_weights + i, mu_k * log2e);
    Store(s.value_weights + i, Fma(half, k_k, phi_k) * scale);
  }
  Softmax(s.key_weights, args.chunk, padded);
  Softmax(s.value_weights, args.chunk, padded);
}

inline void WeightedKey(const SummarizeChunks& args, const SummarizeScratch& s) {
  const int padded = PaddedChunk(args);
  for (int d = 0; d < args.head_dim; ++d) {
    Vec sum = {};
    for (int i = 0; i < padded; i += kLanes) {
      sum = Fma(Load(s.key_weights + i), Load(s.keys + int64_t{d} * padded + i), sum);
    }
    s.key[d] = ReduceAdd(sum);
  }
}

inline void WeightedValue(const SummarizeChunks& args, int chunk_index, const SummarizeScratch& s) {
  const int width = args.padded_head_dim;
  for (int d = 0; d < width; d += kLanes) {
    Vec sum = {};
    ForEachSegment(args, chunk_index, [&](const Segment& segment) {
      const float* values = reinterpret_cast<const float*>(segment.values) + d;
      for (int i = 0; i < segment.count; ++i) {
        const int slot = segment.slot + i;
        const Vec unit = Load(values + int64_t{args.is_bfloat16 ? slot / 2 : slot} * width);
        const Vec v = !args.is_bfloat16 ? unit
                      : slot % 2 == 0   ? LowBFloat16(unit)
                                        : HighBFloat16(unit);
        sum = Fma(Broadcast(s.value_weights[segment.token + i]), v, sum);
      }
    });
    Store(s.value + d, sum);
  }
}

size_t SummarizeScratchBytes(const SummarizeChunks& args) {
  SummarizeScratch s;
  return LayOut(args, nullptr, s);
}

void Summarize(const SummarizeChunks& args, void* scratch) {
  SummarizeScratch s;
  LayOut(args, static_cast<char*>(scratch), s);
  for (int c = 0; c < args.num_chunks; ++c) {
    GatherKeys(args, c, s.keys);
    ChunkWeights(args, s);
    WeightedKey(args, s);
    WeightedValue(args, c, s);
    const int64_t slot = int64_t{args.summary_begin} + c;
    std::byte* keys = args.keys + args.summary_pages[slot / kTileColumns] * args.page_bytes;
    const int in_page = static_cast<int>(slot % kTileColumns);
    StoreKey(s.key, in_page, args.head_dim, args.is_bfloat16, keys);
    StoreValue(s.value, in_page, args.head_dim, args.padded_head_dim, args.is_bfloat16,
               keys + args.key_bytes);
  }
}

}  // namespace
}  // namespace evaserve

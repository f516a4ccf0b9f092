#pragma once

// Folding chunks into summaries. Lanes walk over the tokens of a chunk where keys are read, since
// that is how they lie in a page, and over dimensions where values are.

#include <cstdint>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/matmul.h"
#include "kernels/cpu/isa/slots.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

struct SummarizeScratch {
  float* units;          // [units of head_dim, padded_chunk]: keys that do not lie in whole vectors
  float* key_weights;    // [padded_chunk]: logits, then weights
  float* value_weights;  // the same
  float* key;            // [units of head_dim, rounded up to vectors]
  float* value;          // [padded_head_dim]
};

inline int PaddedChunk(const SummarizeChunks& args) {
  return (args.chunk + kLanes - 1) / kLanes * kLanes;
}

inline int KeyUnits(const SummarizeChunks& args) {
  return args.is_bfloat16 ? args.head_dim / 2 : args.head_dim;
}

inline size_t LayOut(const SummarizeChunks& args, char* base, SummarizeScratch& s) {
  size_t used = 0;
  const auto take = [&](int64_t count) {
    char* begin = base + used;
    used += (count * 4 + 63) / 64 * 64;
    return reinterpret_cast<float*>(begin);
  };
  s.units = take(int64_t{KeyUnits(args)} * PaddedChunk(args));
  s.key_weights = take(PaddedChunk(args));
  s.value_weights = take(PaddedChunk(args));
  s.key = take(KeyUnits(args) + kLanes);
  s.value = take(args.padded_head_dim);
  return used;
}

// Some tokens of a chunk: unit u of all of them is at data + u * stride.
struct KeyColumns {
  const float* data = nullptr;
  int64_t stride = 0;
};

// The tokens of one chunk, of one head.
class Chunk {
 public:
  Chunk(const SummarizeChunks& args, const SummarizeScratch& s, int index)
      : args_(args), s_(s), first_slot_(int64_t{index} * args.chunk) {
    if (!InWholeVectors()) Gather();
  }

  // kLanes tokens from `token` on; zeros beyond the chunk.
  KeyColumns Keys(int token) const {
    if (!InWholeVectors()) return {s_.units + token, PaddedChunk(args_)};
    return {KeysOf(token), kTileColumns};
  }
  // The dimensions of one token's value, or of it and its neighbour as pairs.
  const float* Value(int token) const {
    const int64_t row = Slot(token) % kTileColumns / (args_.is_bfloat16 ? 2 : 1);
    return reinterpret_cast<const float*>(Page(token) + args_.key_bytes) +
           row * args_.padded_head_dim;
  }
  bool IsHighHalf(int token) const { return Slot(token) % 2 != 0; }

 private:
  bool InWholeVectors() const { return args_.chunk % kLanes == 0; }
  int64_t Slot(int token) const { return first_slot_ + token; }
  const std::byte* Page(int token) const {
    return args_.keys + args_.window_pages[Slot(token) / kTileColumns] * args_.page_bytes;
  }
  const float* KeysOf(int token) const {
    return reinterpret_cast<const float*>(Page(token)) + Slot(token) % kTileColumns;
  }
  void Gather() {
    const int padded = PaddedChunk(args_);
    const int num_units = KeyUnits(args_);
    for (int token = 0; token < padded; ++token) {
      const float* from = token < args_.chunk ? KeysOf(token) : nullptr;
      for (int u = 0; u < num_units; ++u) {
        s_.units[int64_t{u} * padded + token] = from ? from[u * kTileColumns] : 0.f;
      }
    }
  }

  const SummarizeChunks& args_;
  const SummarizeScratch& s_;
  const int64_t first_slot_;
};

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

// Sums of mu k, phi k and k k over some dimensions, lane by lane.
struct Products {
  Vec mu_k = {}, phi_k = {}, k_k = {};

  EVASERVE_INLINE void Add(float mu, float phi, Vec k) {
    mu_k = Fma(Broadcast(mu), k, mu_k);
    phi_k = Fma(Broadcast(phi), k, phi_k);
    k_k = Fma(k, k, k_k);
  }
};

template <bool kBf16>
void ChunkWeights(const SummarizeChunks& args, const SummarizeScratch& s, const Chunk& chunk) {
  const Vec log2e = Broadcast(1.44269504f);
  const Vec scale = Broadcast(args.scale * 1.44269504f);
  const int padded = PaddedChunk(args);
  for (int token = 0; token < padded; token += kLanes) {
    const KeyColumns keys = chunk.Keys(token);
    // Even and odd dimensions apart: two chains of sums are twice as fast as one.
    Products even, odd;
    for (int d = 0; d < args.head_dim; d += 2) {
      if constexpr (kBf16) {
        const Vec pairs = Load(keys.data + d / 2 * keys.stride);
        even.Add(args.mu[d], args.phi[d], LowBFloat16(pairs));
        odd.Add(args.mu[d + 1], args.phi[d + 1], HighBFloat16(pairs));
      } else {
        even.Add(args.mu[d], args.phi[d], Load(keys.data + d * keys.stride));
        odd.Add(args.mu[d + 1], args.phi[d + 1], Load(keys.data + (d + 1) * keys.stride));
      }
    }
    Store(s.key_weights + token, (even.mu_k + odd.mu_k) * log2e);
    const Vec half_norm = (even.k_k + odd.k_k) * Broadcast(0.5f);
    Store(s.value_weights + token, (even.phi_k + odd.phi_k - half_norm) * scale);
  }
  Softmax(s.key_weights, args.chunk, padded);
  Softmax(s.value_weights, args.chunk, padded);
}

// kLanes units of the summary key from `unit` on; those beyond the last repeat it.
template <bool kBf16>
EVASERVE_INLINE Vec WeightedUnits(const SummarizeChunks& args, const SummarizeScratch& s,
                                  const Chunk& chunk, int unit) {
  const int last = KeyUnits(args) - 1 - unit;
  Vec low[kLanes], high[kLanes];
  for (int u = 0; u < kLanes; ++u) low[u] = high[u] = Vec{};
  int token = 0;
  do {
    const KeyColumns keys = chunk.Keys(token);
    const Vec weight = Load(s.key_weights + token);
    for (int u = 0; u < kLanes; ++u) {
      const Vec k = Load(keys.data + (unit + (u < last ? u : last)) * keys.stride);
      low[u] = Fma(weight, kBf16 ? LowBFloat16(k) : k, low[u]);
      if constexpr (kBf16) high[u] = Fma(weight, HighBFloat16(k), high[u]);
    }
    token += kLanes;
  } while (token < PaddedChunk(args));
  const Vec sums = ReduceAddEach(low);
  return kBf16 ? ZipBFloat16(sums, ReduceAddEach(high)) : sums;
}

template <bool kBf16>
void WeightedKey(const SummarizeChunks& args, const SummarizeScratch& s, const Chunk& chunk) {
  for (int unit = 0; unit < KeyUnits(args); unit += kLanes) {
    Store(s.key + unit, WeightedUnits<kBf16>(args, s, chunk, unit));
  }
}

// kVecs vectors of dimensions of the summary value, from `d` on.
template <bool kBf16, int kVecs>
EVASERVE_INLINE void WeightedDimensions(const SummarizeChunks& args, const SummarizeScratch& s,
                                        const Chunk& chunk, int d) {
  Vec sum[kVecs];
  for (int n = 0; n < kVecs; ++n) sum[n] = Vec{};
  int token = 0;
  do {
    const float* value = chunk.Value(token) + d;
    const Vec weight = Broadcast(s.value_weights[token]);
    const bool is_high = kBf16 && chunk.IsHighHalf(token);
    for (int n = 0; n < kVecs; ++n) {
      const Vec v = Load(value + n * kLanes);
      sum[n] = Fma(weight, !kBf16 ? v : is_high ? HighBFloat16(v) : LowBFloat16(v), sum[n]);
    }
  } while (++token < args.chunk);
  for (int n = 0; n < kVecs; ++n) Store(s.value + d + n * kLanes, sum[n]);
}

template <bool kBf16>
void WeightedValue(const SummarizeChunks& args, const SummarizeScratch& s, const Chunk& chunk) {
  for (int d = 0; d < args.padded_head_dim; d += kTileWidth) {
    DispatchVecs(
        args.padded_head_dim - d, [&](auto vecs) __attribute__((always_inline)) {
          WeightedDimensions<kBf16, decltype(vecs)::value>(args, s, chunk, d);
        });
  }
}

template <bool kBf16>
void SummarizeAll(const SummarizeChunks& args, const SummarizeScratch& s) {
  for (int c = 0; c < args.num_chunks; ++c) {
    const Chunk chunk(args, s, c);
    ChunkWeights<kBf16>(args, s, chunk);
    WeightedKey<kBf16>(args, s, chunk);
    WeightedValue<kBf16>(args, s, chunk);
    const int64_t slot = int64_t{args.summary_begin} + c;
    std::byte* keys = args.keys + args.summary_pages[slot / kTileColumns] * args.page_bytes;
    const int in_page = static_cast<int>(slot % kTileColumns);
    StoreKey(s.key, KeyUnits(args), in_page, keys);
    StoreValue<kBf16>(s.value, in_page, args.head_dim, args.padded_head_dim, keys + args.key_bytes);
  }
}

size_t SummarizeScratchBytes(const SummarizeChunks& args) {
  SummarizeScratch s;
  return LayOut(args, nullptr, s);
}

void Summarize(const SummarizeChunks& args, void* scratch) {
  SummarizeScratch s;
  LayOut(args, static_cast<char*>(scratch), s);
  if (args.is_bfloat16) {
    SummarizeAll<true>(args, s);
  } else {
    SummarizeAll<false>(args, s);
  }
}

}  // namespace
}  // namespace evaserve

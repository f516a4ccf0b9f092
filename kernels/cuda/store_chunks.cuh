#pragma once

// RoPE, storage of keys and values, and summaries of the chunks that get complete, in one pass over
// the new tokens. A warp takes what the step adds to one chunk of one head; prefill and decoding
// are the same kernel with many and with one token, and give the same bits.
//
// Formulas: kernels/store_slots.h and kernels/summarize.h. Sums are float32 over keys and values
// rounded to the pages' type. Bound by memory: q is read and written, k and v are read, slots are
// written once. What a chunk's summary reads again has just been written or is a few rows.

#include "kernels/cuda/store_chunks_args.h"
#include "kernels/cuda/vectors.h"

namespace evaserve {

template <DType kType, int kHeadDim>
struct StoreChunk {
  using Image = PageImageOf<kType, kHeadDim>;
  using Value = Element<kType>;
  using Values4 = Elements4<kType>;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  // A row is spread over kLanes lanes; each has four dimensions of either half of the head, which
  // RoPE pairs.
  static constexpr int kLanes = kHeadDim <= 32 ? 4 : kHeadDim <= 64 ? 8 : 16;
  static constexpr int kRows = 32 / kLanes;  // at once
  static constexpr int kHalf = kHeadDim / 2;

  struct Row {
    Floats4 part[2];
  };
  // A softmax over rows and the sum that it weighs.
  struct Summary {
    float max = -1e30f;
    float weights = 0.f;
    Row sum = {};
  };

  const StoreChunksArgs& args;
  const CudaChunk& chunk;
  const int head;
  const int lane = ptx::ThreadIndex() % 32;
  const int first_row = lane / kLanes;
  const int dim = lane % kLanes * 4;
  const bool is_active = dim < kHalf;  // not all lanes are needed for 96 dimensions

  EVASERVE_DEVICE char* Keys(int page) const {
    return args.pool + page * args.page_bytes + int64_t{head} * 2 * Image::kBytes;
  }

  EVASERVE_DEVICE Row LoadRow(const Value* from) const {
    return {{ToFloats<kType>(*reinterpret_cast<const Values4*>(from + dim)),
             ToFloats<kType>(*reinterpret_cast<const Values4*>(from + kHalf + dim))}};
  }
  EVASERVE_DEVICE void StoreRow(const Row& row, Value* to) const {
    *reinterpret_cast<Values4*>(to + dim) = FromFloats<kType>(row.part[0]);
    *reinterpret_cast<Values4*>(to + kHalf + dim) = FromFloats<kType>(row.part[1]);
  }
  EVASERVE_DEVICE Row LoadSlot(const char* image, int slot) const {
    Row row;
    EVASERVE_UNROLL
    for (int i = 0; i < 2; ++i) {
      row.part[i] = ToFloats<kType>(
          *reinterpret_cast<const Values4*>(image + Image::Offset(slot, i * kHalf + dim)));
    }
    return row;
  }
  EVASERVE_DEVICE void StoreSlot(const Row& row, char* image, int slot) const {
    EVASERVE_UNROLL
    for (int i = 0; i < 2; ++i) {
      *reinterpret_cast<Values4*>(image + Image::Offset(slot, i * kHalf + dim)) =
          FromFloats<kType>(row.part[i]);
    }
  }
  EVASERVE_DEVICE Row LoadFloats(const float* from) const {
    return {{*reinterpret_cast<const Floats4*>(from + dim),
             *reinterpret_cast<const Floats4*>(from + kHalf + dim)}};
  }

  EVASERVE_DEVICE static Row Rotate(const Row& x, const Floats4& cos, const Floats4& sin) {
    Row y;
    EVASERVE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float low = x.part[0].at[i], high = x.part[1].at[i];
      y.part[0].at[i] = low * cos.at[i] - high * sin.at[i];
      y.part[1].at[i] = high * cos.at[i] + low * sin.at[i];
    }
    return y;
  }

  EVASERVE_DEVICE void StoreToken(int i) const {
    const int64_t token = chunk.token + i;
    const int64_t at = token * args.token_stride + int64_t{head} * kHeadDim;
    const int64_t angle = int64_t{args.positions[token]} * kHalf + dim;
    const Floats4 cos = *reinterpret_cast<const Floats4*>(args.cos + angle);
    const Floats4 sin = *reinterpret_cast<const Floats4*>(args.sin + angle);
    Value* const q = static_cast<Value*>(args.q) + at;
    char* const keys = Keys(chunk.page);
    StoreRow(Rotate(LoadRow(q), cos, sin), q);
    StoreSlot(Rotate(LoadRow(static_cast<const Value*>(args.k) + at), cos, sin), keys,
              chunk.slot + i);
    StoreSlot(LoadRow(static_cast<const Value*>(args.v) + at), keys + Image::kBytes,
              chunk.slot + i);
  }

  EVASERVE_DEVICE static float Dot(const Row& a, const Row& b) {
    float sum = 0.f;
    EVASERVE_UNROLL
    for (int i = 0; i < 2; ++i) {
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) sum += a.part[i].at[j] * b.part[i].at[j];
    }
    return sum;
  }
  // Of the lanes that share a row.
  EVASERVE_DEVICE static float SumOfRow(float x) {
    EVASERVE_UNROLL
    for (int step = 1; step < kLanes; step *= 2) x += ptx::ShuffleXor(x, step);
    return x;
  }
  // Logits are in base 2.
  EVASERVE_DEVICE static void Add(const Row& row, float logit, float is_there, Summary& summary) {
    const float max = fmaxf(summary.max, logit);
    const float correction = ptx::Exp2(summary.max - max),
                weight = is_there * ptx::Exp2(logit - max);
    summary.max = max;
    summary.weights = summary.weights * correction + weight;
    EVASERVE_UNROLL
    for (int i = 0; i < 2; ++i) {
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) {
        float& sum = summary.sum.part[i].at[j];
        sum = sum * correction + weight * row.part[i].at[j];
      }
    }
  }
  // Joins the rows that the warp has taken side by side.
  EVASERVE_DEVICE static Row Join(Summary& summary) {
    EVASERVE_UNROLL
    for (int step = kLanes; step < 32; step *= 2) {
      const float max = fmaxf(summary.max, ptx::ShuffleXor(summary.max, step));
      const float factor = ptx::Exp2(summary.max - max);
      summary.max = max;
      summary.weights *= factor;
      summary.weights += ptx::ShuffleXor(summary.weights, step);
      EVASERVE_UNROLL
      for (int i = 0; i < 2; ++i) {
        EVASERVE_UNROLL
        for (int j = 0; j < 4; ++j) {
          float& sum = summary.sum.part[i].at[j];
          sum *= factor;
          sum += ptx::ShuffleXor(sum, step);
        }
      }
    }
    EVASERVE_UNROLL
    for (int i = 0; i < 2; ++i) {
      EVASERVE_UNROLL
      for (int j = 0; j < 4; ++j) summary.sum.part[i].at[j] /= summary.weights;
    }
    return summary.sum;
  }

  // Each lane reads what it has written itself, or an earlier launch.
  EVASERVE_DEVICE void Summarize() const {
    constexpr float kLog2E = 1.44269504088896341f;
    const char* const keys = Keys(chunk.page);
    Row mu = {}, phi = {};
    if (is_active) {
      mu = LoadFloats(args.mu + int64_t{head} * kHeadDim);
      phi = LoadFloats(args.phi + int64_t{head} * kHeadDim);
    }
    Summary key, value;
    for (int i = 0; i < args.chunk; i += kRows) {
      const bool is_there = i + first_row < args.chunk;
      Row k = {}, v = {};
      if (is_there && is_active) {
        k = LoadSlot(keys, chunk.chunk_begin + i + first_row);
        v = LoadSlot(keys + Image::kBytes, chunk.chunk_begin + i + first_row);
      }
      const float by_mu = SumOfRow(Dot(mu, k));
      const float by_phi = SumOfRow(Dot(phi, k) - 0.5f * Dot(k, k));
      const float weight = is_there ? 1.f : 0.f;
      Add(k, is_there ? by_mu * kLog2E : key.max, weight, key);
      Add(v, is_there ? by_phi * args.scale * kLog2E : value.max, weight, value);
    }
    const Row summary_key = Join(key), summary_value = Join(value);
    if (first_row != 0 || !is_active) return;
    char* const to = Keys(chunk.summary_page);
    StoreSlot(summary_key, to, chunk.summary_slot);
    StoreSlot(summary_value, to + Image::kBytes, chunk.summary_slot);
  }

  EVASERVE_DEVICE void Run() const {
    // A slot is written by the lanes that read it in Summarize().
    const int skipped = (chunk.slot - chunk.chunk_begin) % kRows;
    for (int i = first_row - skipped; i < chunk.num_tokens; i += kRows) {
      if (i >= 0 && is_active) StoreToken(i);
    }
    if (chunk.summary_page >= 0) Summarize();
  }
};

// A warp per chunk and head.
template <DType kType, int kHeadDim>
EVASERVE_KERNEL((StoreChunk<kType, kHeadDim>::kThreads), 1)
StoreChunksKernel(const EVASERVE_GRID_CONSTANT StoreChunksArgs args) {
  using Kernel = StoreChunk<kType, kHeadDim>;
  const int work = ptx::BlockIndex() * Kernel::kWarps + ptx::ThreadIndex() / 32;
  if (work >= args.num_chunks * args.num_heads) return;
  const Kernel kernel{args, args.chunks[work / args.num_heads], work % args.num_heads};
  kernel.Run();
}

}  // namespace evaserve

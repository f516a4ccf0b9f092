#pragma once

// One step of attention by mma.sync, for kernels of any device from sm_80 on: a warp's 16 queries
// against 64 keys, the softmax that goes on from step to step, and the weighted sum of 64 values.

#include "kernels/cuda/page_image.h"
#include "kernels/cuda/ptx.h"

namespace evaserve {

template <DType kType, int kHeadDim>
struct MmaTile {
  using Image = PageImage<kHeadDim>;
  static constexpr int kWarpRows = 16;
  static constexpr int kSlots = 64;
  static constexpr int kBytes = kSlots * kHeadDim * 2;
  static constexpr float kHidden = -1e30f;  // a logit of what is not seen

  static constexpr int kDimSteps = kHeadDim / 16;
  static constexpr int kSlotSteps = kSlots / 16;
  static constexpr int kDimTiles = kHeadDim / 8;
  static constexpr int kSlotTiles = kSlots / 8;
  static constexpr int kRowPieces = Image::kRowBytes / 16;

  struct Softmax {
    float max[2] = {kHidden, kHidden};
    float sum[2] = {0.f, 0.f};
  };

  // Tiles in shared memory are as pages are, with kSlots rows.
  EVASERVE_DEVICE static uint32_t Offset(int row, int piece) {
    return piece / kRowPieces * (kSlots * Image::kRowBytes) +
           Image::Swizzle(row, piece % kRowPieces * 16);
  }

  // Logits of the rows from first_row on, not yet scaled.
  EVASERVE_DEVICE static void MultiplyKeys(ptx::SharedAddress queries, int first_row,
                                           ptx::SharedAddress keys, int lane,
                                           float (&s)[kSlotTiles][4]) {
    EVASERVE_UNROLL
    for (int j = 0; j < kSlotTiles; ++j) {
      EVASERVE_UNROLL
      for (int i = 0; i < 4; ++i) s[j][i] = 0.f;
    }
    EVASERVE_UNROLL
    for (int k = 0; k < kDimSteps; ++k) {
      uint32_t q[4];
      ptx::LoadMatrices(q, queries + Offset(first_row + lane % 16, 2 * k + lane / 16),
                        /*transposed=*/false);
      EVASERVE_UNROLL
      for (int j = 0; j < kSlotSteps; ++j) {
        uint32_t b[4];
        ptx::LoadMatrices(b, keys + Offset(j * 16 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2),
                          /*transposed=*/false);
        ptx::Mma<kType>(s[2 * j], q, b[0], b[1]);
        ptx::Mma<kType>(s[2 * j + 1], q, b[2], b[3]);
      }
    }
  }

  // In row r of the lane, those of slots [32 * word, 32 * word + 32) whose bit is not set.
  EVASERVE_DEVICE static void Hide(uint32_t visible, int word, int r, int lane,
                                   float (&s)[kSlotTiles][4]) {
    visible >>= lane % 4 * 2;
    EVASERVE_UNROLL
    for (int j = 0; j < 4; ++j) {
      float* const logits = &s[word * 4 + j][2 * r];
      if ((visible >> (8 * j) & 1) == 0) logits[0] = kHidden;
      if ((visible >> (8 * j + 1) & 1) == 0) logits[1] = kHidden;
    }
  }

  // Logits become weights; what is in `out` moves to the new maximum.
  EVASERVE_DEVICE static void Weigh(float scale_log2, float (&s)[kSlotTiles][4], Softmax& softmax,
                                    float (&out)[kDimTiles][4]) {
    EVASERVE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float max = softmax.max[r];
      EVASERVE_UNROLL
      for (int j = 0; j < kSlotTiles; ++j) max = fmaxf(max, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
      max = fmaxf(max, ptx::ShuffleXor(max, 1));
      max = fmaxf(max, ptx::ShuffleXor(max, 2));
      const float correction = ptx::Exp2((softmax.max[r] - max) * scale_log2);
      // A row that has seen nothing yet gets weights of 0: of equal hugenesses Fma leaves a rest.
      const float base = fmaxf(max, 0.5f * kHidden) * scale_log2;
      float sum = 0.f;
      EVASERVE_UNROLL
      for (int j = 0; j < kSlotTiles; ++j) {
        EVASERVE_UNROLL
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          s[j][i] = ptx::Exp2(ptx::Fma(s[j][i], scale_log2, -base));
          sum += s[j][i];
        }
      }
      softmax.max[r] = max;
      softmax.sum[r] = softmax.sum[r] * correction + sum;
      EVASERVE_UNROLL
      for (int d = 0; d < kDimTiles; ++d) {
        out[d][2 * r] *= correction;
        out[d][2 * r + 1] *= correction;
      }
    }
  }

  EVASERVE_DEVICE static void MultiplyValues(const float (&s)[kSlotTiles][4],
                                             ptx::SharedAddress values, int lane,
                                             float (&out)[kDimTiles][4]) {
    EVASERVE_UNROLL
    for (int k = 0; k < kSlotSteps; ++k) {
      const uint32_t weights[4] = {ptx::PackHalves<kType>(s[2 * k][0], s[2 * k][1]),
                                   ptx::PackHalves<kType>(s[2 * k][2], s[2 * k][3]),
                                   ptx::PackHalves<kType>(s[2 * k + 1][0], s[2 * k + 1][1]),
                                   ptx::PackHalves<kType>(s[2 * k + 1][2], s[2 * k + 1][3])};
      EVASERVE_UNROLL
      for (int d = 0; d < kHeadDim / 16; ++d) {
        uint32_t b[4];
        ptx::LoadMatrices(b, values + Offset(k * 16 + lane % 16, 2 * d + lane / 16),
                          /*transposed=*/true);
        ptx::Mma<kType>(out[2 * d], weights, b[0], b[1]);
        ptx::Mma<kType>(out[2 * d + 1], weights, b[2], b[3]);
      }
    }
  }

  // Of row r of the lane: the sum of all lanes' weights.
  EVASERVE_DEVICE static float Normaliser(const Softmax& softmax, int r) {
    float sum = softmax.sum[r];
    sum += ptx::ShuffleXor(sum, 1);
    sum += ptx::ShuffleXor(sum, 2);
    return sum;
  }
  // Its natural log.
  EVASERVE_DEVICE static float Lse(float scale_log2, const Softmax& softmax, int r, float sum) {
    return (softmax.max[r] * scale_log2 + ptx::Log2(sum)) * 0.693147180559945309f;
  }
};

}  // namespace evaserve

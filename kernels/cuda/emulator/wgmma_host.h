#pragma once

// The wrappers of ptx.h for a warpgroup's tensor cores (sm_90a), for the emulator. Included by
// ptx_host.h alone.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cuda/emulator/emulator.h"

namespace evaserve::ptx {

template <int kRegisters>
void GrowRegisters() {}
template <int kRegisters>
void ShrinkRegisters() {}

// Element (i, k) of the operand of a wgmma, where i walks over rows of a or columns of b.
inline uint16_t OperandElement(Descriptor descriptor, int i, int k, bool mn_major) {
  const auto field = [&](int shift) {
    return static_cast<uint32_t>(descriptor >> shift & 0x3fff) << 4;
  };
  const bool is_128 = descriptor >> 62 == 1;
  if (!is_128 && descriptor >> 62 != 2) emulator::Fail("wgmma: only 64 and 128 byte swizzles");
  const int row_bytes = is_128 ? 128 : 64, width = row_bytes / 2;
  const uint32_t start = field(0), block_stride = field(16), group_stride = field(32);
  uint32_t at = mn_major ? start + i / width * block_stride + k / 8 * group_stride +
                               k % 8 * row_bytes + i % width * 2
                         : start + i / 8 * group_stride + i % 8 * row_bytes + k * 2;
  at ^= (at >> 7 & (row_bytes / 16 - 1)) << 4;
  uint16_t bits;
  std::memcpy(&bits, SharedBytes(at, 2, 2), 2);
  return bits;
}

// What was computed into these registers is, and what is computed from them is not yet.
template <typename T, int kCount>
void Pin(T (&)[kCount]) {}

// Before the first wgmma that uses registers which this thread has touched.
inline void FenceWgmma() {}

struct WgmmaArguments {
  float* d;
  const uint32_t* a_registers;  // null: from a
  Descriptor a, b;
  bool accumulate;
};

// The 16 rows of one warp, whose lanes' arguments are from[0..31].
template <DType kType, int kColumns, bool kTransposedB>
void ExecuteWgmma(const WgmmaArguments* from, int warp) {
  float a[16][16], b[kColumns][16];
  for (int n = 0; n < kColumns; ++n) {
    for (int k = 0; k < 16; ++k) {
      b[n][k] = FloatFromHalf<kType>(OperandElement(from->b, n, k, kTransposedB));
    }
  }
  for (int lane = 0; lane < emulator::kWarpSize; ++lane) {
    for (int n = 0; n < 4; ++n) {
      for (int k = 0; k < 2; ++k) {
        const int i = lane / 4 + n % 2 * 8, j = lane % 4 * 2 + n / 2 * 8 + k;
        const uint32_t* const registers = from[lane].a_registers;
        a[i][j] = FloatFromHalf<kType>(registers == nullptr
                                           ? OperandElement(from->a, warp * 16 + i, j, false)
                                           : static_cast<uint16_t>(registers[n] >> (16 * k)));
      }
    }
  }
  for (int lane = 0; lane < emulator::kWarpSize; ++lane) {
    for (int i = 0; i < kColumns / 2; ++i) {
      const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      float sum = from[lane].accumulate ? from[lane].d[i] : 0.f;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
      from[lane].d[i] = sum;
    }
  }
}

// The accumulators of a warp hold NaN until it waits for the wgmmas that write them; only then
// are the operands read, for this warp.
template <DType kType, int kColumns, bool kTransposedB>
void IssueWgmma(const WgmmaArguments& mine) {
  constexpr int kSums = kColumns / 2;
  emulator::Warpgroup& group =
      emulator::Current().block->warpgroups[emulator::Current().index / emulator::kWarpgroupSize];
  emulator::ExecuteTogether(group.rendezvous, "wgmma", &mine, [&](const auto& arguments) {
    std::vector<WgmmaArguments> all;
    for (const void* one : arguments) all.push_back(*static_cast<const WgmmaArguments*>(one));
    for (const WgmmaArguments& one : all) {
      if (one.a != all[0].a || one.b != all[0].b || one.accumulate != all[0].accumulate) {
        emulator::Fail("wgmma: threads of a warpgroup differ in an operand");
      }
    }
    for (int warp = 0; warp < emulator::kWarpsPerGroup; ++warp) {
      const auto first = all.begin() + warp * emulator::kWarpSize;
      std::vector<WgmmaArguments> lanes(first, first + emulator::kWarpSize);
      std::deque<emulator::PendingWgmma>& wgmmas = group.wgmmas[warp];
      const float* const accumulator = lanes[0].d;
      const bool is_first = std::none_of(
          wgmmas.begin(), wgmmas.end(),
          [&](const emulator::PendingWgmma& other) { return other.accumulator == accumulator; });
      std::vector<float> before;
      for (const WgmmaArguments& lane : lanes) {
        if (!is_first) break;
        before.insert(before.end(), lane.d, lane.d + kSums);
        std::fill(lane.d, lane.d + kSums, std::nanf(""));
      }
      auto execute = [warp, lanes = std::move(lanes), before = std::move(before)] {
        for (size_t i = 0; i < lanes.size() && !before.empty(); ++i) {
          std::copy_n(before.begin() + i * (kColumns / 2), kColumns / 2, lanes[i].d);
        }
        ExecuteWgmma<kType, kColumns, kTransposedB>(lanes.data(), warp);
      };
      wgmmas.push_back({std::move(execute), accumulator, group.group});
    }
  });
}

// d = a b, or d += a b: a is 64 x 16 in shared memory, K-major; b is 16 x kColumns, K-major.
template <DType kType, int kColumns>
void WgmmaShared(float (&d)[kColumns / 2], Descriptor a, Descriptor b, bool accumulate) {
  IssueWgmma<kType, kColumns, false>({d, nullptr, a, b, accumulate});
}
// The same with a in registers, which must not change until the wgmma is waited for, and b
// MN-major.
template <DType kType, int kColumns>
void WgmmaRegisters(float (&d)[kColumns / 2], const uint32_t* a, Descriptor b, bool accumulate) {
  IssueWgmma<kType, kColumns, true>({d, a, 0, b, accumulate});
}

inline void CommitWgmmas() {
  emulator::Warpgroup& group =
      emulator::Current().block->warpgroups[emulator::Current().index / emulator::kWarpgroupSize];
  emulator::ExecuteTogether(group.rendezvous, "wgmma.commit_group", nullptr,
                            [&](const auto&) { ++group.group; });
}
// Waits for all but the last kGroups groups.
template <int kGroups>
void WaitForWgmmas() {
  const emulator::Thread& thread = emulator::Current();
  emulator::Warpgroup& group = thread.block->warpgroups[thread.index / emulator::kWarpgroupSize];
  auto& wgmmas = group.wgmmas[thread.index / emulator::kWarpSize % emulator::kWarpsPerGroup];
  emulator::ExecuteAsWarp("wgmma.wait_group", nullptr, [&](const auto&) {
    for (int turns = emulator::Random(6); turns > 0; --turns) {
      ++thread.block->progress;
      emulator::Yield();
    }
    while (!wgmmas.empty() && wgmmas.front().group < group.group - kGroups) {
      wgmmas.front().execute();
      wgmmas.pop_front();
    }
  });
}

}  // namespace evaserve::ptx

#pragma once

// The wrappers of ptx.h for the emulator. Included by ptx.h alone. Contracts are the instructions';
// what differs is that misuse is an error, and that results come late (emulator.h).

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cuda/emulator/emulator.h"

namespace evaserve::ptx {

inline int ThreadIndex() { return emulator::Current().index; }
inline int BlockIndex() { return emulator::Current().block->index; }
inline int NumBlocks() { return emulator::Current().block->num_blocks; }

// --- Shared memory

inline char* SharedMemory() { return emulator::Current().block->shared; }
inline SharedAddress AddressOf(const void* shared) {
  return static_cast<SharedAddress>(static_cast<const char*>(shared) - SharedMemory());
}
// `bytes` of shared memory from `address` on.
inline char* SharedBytes(SharedAddress address, size_t bytes, size_t alignment) {
  if (address % alignment != 0) emulator::Fail("a shared address is misaligned");
  if (address + bytes > emulator::Current().block->shared_bytes) {
    emulator::Fail("a shared address is out of range");
  }
  return SharedMemory() + address;
}

// --- Numbers

inline float Exp2(float x) { return std::exp2(x); }
// One rounding, as nvcc makes of a product and a sum.
inline float Fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float Log2(float x) { return std::log2(x); }
inline float ReciprocalSqrt(float x) { return 1.f / std::sqrt(x); }
inline float FloatFromBits(uint32_t bits) { return std::bit_cast<float>(bits); }

template <DType kType>
uint32_t PackHalves(float low, float high) {
  return HalfFromFloat<kType>(low) | uint32_t{HalfFromFloat<kType>(high)} << 16;
}
template <DType kType>
float LowHalf(uint32_t pair) {
  return FloatFromHalf<kType>(static_cast<uint16_t>(pair));
}
template <DType kType>
float HighHalf(uint32_t pair) {
  return FloatFromHalf<kType>(static_cast<uint16_t>(pair >> 16));
}

// --- Threads

inline void SyncNamed(int barrier, int num_threads) {
  emulator::SyncNamedBarrier(barrier, num_threads);
}
inline void ArriveNamed(int barrier, int num_threads) {
  emulator::ArriveAtNamedBarrier(barrier, num_threads);
}
inline void SyncBlock() {
  SyncNamed(0, static_cast<int>(emulator::Current().block->threads.size()));
}
inline void SyncWarp() {
  emulator::ExecuteAsWarp("bar.warp.sync", nullptr, [](auto&) {});
}

inline float ShuffleXor(float value, int lane_mask) {
  struct Arguments {
    float in;
    int lane_mask;
    mutable float out;
  };
  const Arguments mine{value, lane_mask, 0.f};
  emulator::ExecuteAsWarp("shfl.bfly", &mine, [](const auto& all) {
    for (int lane = 0; lane < emulator::kWarpSize; ++lane) {
      const auto* to = static_cast<const Arguments*>(all[lane]);
      to->out = static_cast<const Arguments*>(all[lane ^ to->lane_mask])->in;
    }
  });
  return mine.out;
}

// A value that is the same in all lanes, told to the compiler.
inline int UniformInWarp(int value) { return value; }
inline int AtomicAdd(int* value, int increment) {
  const int before = *value;
  *value += increment;
  return before;
}
inline void FenceMemory() {}

// --- Tensor cores, a warp

// One matrix of 8 x 8 halves each from the row addresses of lanes 0-7, 8-15, 16-23 and 24-31.
inline void LoadMatrices(uint32_t (&to)[4], SharedAddress row, bool transposed) {
  struct Arguments {
    const char* row;
    uint32_t* to;
    bool transposed;
  };
  const Arguments mine{SharedBytes(row, 16, 16), to, transposed};
  emulator::ExecuteAsWarp("ldmatrix.x4", &mine, [](const auto& all) {
    const auto element = [&](int matrix, int row, int column) {
      uint16_t bits;
      std::memcpy(&bits, static_cast<const Arguments*>(all[matrix * 8 + row])->row + column * 2, 2);
      return uint32_t{bits};
    };
    for (int lane = 0; lane < emulator::kWarpSize; ++lane) {
      const auto* to = static_cast<const Arguments*>(all[lane]);
      const int i = lane / 4, j = lane % 4 * 2;
      for (int m = 0; m < 4; ++m) {
        to->to[m] = to->transposed ? element(m, j, i) | element(m, j + 1, i) << 16
                                   : element(m, i, j) | element(m, i, j + 1) << 16;
      }
    }
  });
}

// c += a b: a is 16 x 16, b is 16 x 8, fragments as the instruction has them.
template <DType kType>
void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b_low, uint32_t b_high) {
  struct Arguments {
    float* c;
    const uint32_t* a;
    uint32_t b[2];
  };
  const Arguments mine{c, a, {b_low, b_high}};
  emulator::ExecuteAsWarp("mma.m16n8k16", &mine, [](const auto& all) {
    float a[16][16], b[8][16];
    for (int lane = 0; lane < emulator::kWarpSize; ++lane) {
      const auto* from = static_cast<const Arguments*>(all[lane]);
      const int i = lane / 4, j = lane % 4 * 2;
      for (int n = 0; n < 4; ++n) {
        float* to = &a[i + n % 2 * 8][j + n / 2 * 8];
        to[0] = LowHalf<kType>(from->a[n]);
        to[1] = HighHalf<kType>(from->a[n]);
      }
      for (int n = 0; n < 2; ++n) {
        b[i][j + n * 8] = LowHalf<kType>(from->b[n]);
        b[i][j + n * 8 + 1] = HighHalf<kType>(from->b[n]);
      }
    }
    for (int lane = 0; lane < emulator::kWarpSize; ++lane) {
      const auto* to = static_cast<const Arguments*>(all[lane]);
      for (int n = 0; n < 4; ++n) {
        const int row = lane / 4 + n / 2 * 8, column = lane % 4 * 2 + n % 2;
        float sum = 0.f;
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
        to->c[n] += sum;
      }
    }
  });
}

// --- Asynchronous copies of a thread

// 16 bytes; zeros if the source is not valid.
inline void CopyAsync(SharedAddress to, const void* from, bool is_valid) {
  emulator::Thread& thread = emulator::Current();
  emulator::PendingCopy copy{SharedBytes(to, 16, 16), {}, thread.copy_group};
  if (is_valid) std::memcpy(copy.data, from, 16);
  std::memset(copy.to, 0xff, 16);
  thread.copies.push_back(copy);
}
inline void CommitCopies() { ++emulator::Current().copy_group; }
// Waits for all but the last kGroups groups of this thread.
template <int kGroups>
void WaitForCopies() {
  emulator::Thread& thread = emulator::Current();
  while (!thread.copies.empty() && thread.copies.front().group < thread.copy_group - kGroups) {
    std::memcpy(thread.copies.front().to, thread.copies.front().data, 16);
    thread.copies.pop_front();
  }
}

// --- Barriers in shared memory (mbarrier)

struct Barrier {
  uint16_t phase : 1, num_threads : 15;
  uint16_t num_missing;
  int32_t missing_bytes;
};
static_assert(sizeof(Barrier) == 8);

inline Barrier& BarrierAt(SharedAddress address) {
  return *reinterpret_cast<Barrier*>(SharedBytes(address, 8, 8));
}
inline void EndPhaseIfComplete(Barrier& barrier) {
  if (barrier.num_missing > 0 || barrier.missing_bytes != 0) return;
  barrier.phase ^= 1;
  barrier.num_missing = barrier.num_threads;
}
inline void InitBarrier(SharedAddress address, int num_threads) {
  BarrierAt(address) = {0, static_cast<uint16_t>(num_threads), static_cast<uint16_t>(num_threads),
                        0};
}
inline void FenceBarrierInit() {}
inline void Arrive(SharedAddress address) {
  Barrier& barrier = BarrierAt(address);
  if (barrier.num_missing == 0) emulator::Fail("too many threads arrive at an mbarrier");
  --barrier.num_missing;
  ++emulator::Current().block->progress;
  EndPhaseIfComplete(barrier);
}
// Arrives, and lets the phase wait for that many bytes of bulk copies.
inline void ArriveExpecting(SharedAddress address, int bytes) {
  BarrierAt(address).missing_bytes += bytes;
  Arrive(address);
}
// Waits until the phase of that parity is complete. A fresh barrier is in phase 0.
inline void Wait(SharedAddress address, int parity) {
  emulator::WaitUntil("mbarrier.wait", [&] { return BarrierAt(address).phase != parity; });
}

// For a phase that has been waited for and cannot have ended since: a branch that no instruction
// crosses.
inline void WaitAgain(SharedAddress, int) {}

// --- Bulk copies

// Makes this thread's writes to shared memory visible to bulk copies and wgmma.
inline void FenceAsync() {}

// All in multiples of 16 bytes. Arrives with its bytes at the barrier.
inline void CopyBulk(SharedAddress to, const void* from, int bytes, SharedAddress barrier) {
  if (bytes % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    emulator::Fail("a bulk copy is misaligned");
  }
  char* const target = SharedBytes(to, bytes, 16);
  Barrier* const arrival = &BarrierAt(barrier);
  std::memset(target, 0xff, bytes);
  emulator::DoLater([=] {
    std::memcpy(target, from, bytes);
    arrival->missing_bytes -= bytes;
    EndPhaseIfComplete(*arrival);
  });
}

// A matrix of halves in global memory, of which boxes are copied, with their rows swizzled.
struct TensorMap {
  const uint16_t* data = nullptr;
  int num_columns = 0;
  int num_rows = 0;
  int64_t row_stride = 0;  // elements
  int box_columns = 0;     // one row of the swizzle: 32 or 64
  int box_rows = 0;
};

// The box whose first element is at (column, row); zeros where it leaves the matrix.
inline void CopyBox(SharedAddress to, const TensorMap* map, int column, int row,
                    SharedAddress barrier) {
  const int row_bytes = map->box_columns * 2, bytes = map->box_rows * row_bytes;
  char* const target = SharedBytes(to, bytes, 1024);
  Barrier* const arrival = &BarrierAt(barrier);
  std::memset(target, 0xff, bytes);
  emulator::DoLater([=, map = *map] {
    for (int i = 0; i < map.box_rows; ++i) {
      for (int j = 0; j < map.box_columns; ++j) {
        const bool is_inside = row + i < map.num_rows && column + j < map.num_columns;
        const uint16_t value =
            is_inside ? map.data[(row + i) * map.row_stride + column + j] : uint16_t{0};
        const uint32_t at = i * row_bytes + j * 2;
        std::memcpy(target + (at ^ (at >> 7 & (row_bytes / 16 - 1)) << 4), &value, 2);
      }
    }
    arrival->missing_bytes -= bytes;
    EndPhaseIfComplete(*arrival);
  });
}

}  // namespace evaserve::ptx

#include "kernels/cuda/emulator/wgmma_host.h"

#pragma once

// The wrappers of ptx.h on a device. Included by ptx.h alone.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#define EVASERVE_PTX __device__ __forceinline__

namespace evaserve::ptx {

EVASERVE_PTX int ThreadIndex() { return threadIdx.x; }
EVASERVE_PTX int BlockIndex() { return blockIdx.x; }
EVASERVE_PTX int NumBlocks() { return gridDim.x; }

// --- Shared memory

EVASERVE_PTX char* SharedMemory() {
  extern __shared__ __align__(1024) char shared[];
  return shared;
}
EVASERVE_PTX SharedAddress AddressOf(const void* shared) {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(shared));
}

// --- Numbers

EVASERVE_PTX float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
EVASERVE_PTX float Fma(float a, float b, float c) { return fmaf(a, b, c); }
EVASERVE_PTX float Log2(float x) { return log2f(x); }
EVASERVE_PTX float ReciprocalSqrt(float x) { return rsqrtf(x); }
EVASERVE_PTX float FloatFromBits(uint32_t bits) { return __uint_as_float(bits); }

template <DType kType>
EVASERVE_PTX uint32_t PackHalves(float low, float high) {
  uint32_t pair;
  if constexpr (kType == DType::kBFloat16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  }
  return pair;
}
template <DType kType>
EVASERVE_PTX float LowHalf(uint32_t pair) {
  if constexpr (kType == DType::kBFloat16) return __uint_as_float(pair << 16);
  return __half2float(__ushort_as_half(static_cast<uint16_t>(pair)));
}
template <DType kType>
EVASERVE_PTX float HighHalf(uint32_t pair) {
  if constexpr (kType == DType::kBFloat16) return __uint_as_float(pair & 0xffff0000u);
  return __half2float(__ushort_as_half(static_cast<uint16_t>(pair >> 16)));
}

// --- Threads

EVASERVE_PTX void SyncNamed(int barrier, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}
EVASERVE_PTX void ArriveNamed(int barrier, int num_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(num_threads) : "memory");
}
EVASERVE_PTX void SyncBlock() { __syncthreads(); }
EVASERVE_PTX void SyncWarp() { __syncwarp(); }
EVASERVE_PTX float ShuffleXor(float value, int lane_mask) {
  return __shfl_xor_sync(0xffffffffu, value, lane_mask);
}
// A value that is the same in all lanes, told to the compiler.
EVASERVE_PTX int UniformInWarp(int value) { return __shfl_sync(0xffffffffu, value, 0); }
EVASERVE_PTX int AtomicAdd(int* value, int increment) { return atomicAdd(value, increment); }
EVASERVE_PTX void FenceMemory() { __threadfence(); }

// --- Tensor cores, a warp

EVASERVE_PTX void LoadMatrices(uint32_t (&to)[4], SharedAddress row, bool transposed) {
  if (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
  }
}

#define EVASERVE_MMA(type)                                                            \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high))
template <DType kType>
EVASERVE_PTX void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b_low, uint32_t b_high) {
  if constexpr (kType == DType::kBFloat16) {
    EVASERVE_MMA("bf16");
  } else {
    EVASERVE_MMA("f16");
  }
}
#undef EVASERVE_MMA

// --- Asynchronous copies of a thread

EVASERVE_PTX void CopyAsync(SharedAddress to, const void* from, bool is_valid) {
  const int bytes = is_valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
EVASERVE_PTX void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroups>
EVASERVE_PTX void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// --- Barriers in shared memory

EVASERVE_PTX void InitBarrier(SharedAddress barrier, int num_threads) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(num_threads)
               : "memory");
}
EVASERVE_PTX void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
EVASERVE_PTX void Arrive(SharedAddress barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
EVASERVE_PTX void ArriveExpecting(SharedAddress barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
EVASERVE_PTX void Wait(SharedAddress barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// For a phase that has been waited for and cannot have ended since: a branch that no instruction
// crosses.
EVASERVE_PTX void WaitAgain(SharedAddress barrier, int parity) { Wait(barrier, parity); }

// --- Bulk copies

EVASERVE_PTX void FenceAsync() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
EVASERVE_PTX void CopyBulk(SharedAddress to, const void* from, int bytes, SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

using TensorMap = CUtensorMap;
EVASERVE_PTX void CopyBox(SharedAddress to, const TensorMap* map, int column, int row,
                          SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}

// --- Tensor cores, a warpgroup (sm_90a)

template <int kRegisters>
EVASERVE_PTX void GrowRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
EVASERVE_PTX void ShrinkRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
// What was computed into these registers is, and what is computed from them is not yet: a wait for
// wgmmas does not name the registers that they write.
template <int kCount>
EVASERVE_PTX void Pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int kCount>
EVASERVE_PTX void Pin(uint32_t (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(values[i])::"memory");
}
EVASERVE_PTX void FenceWgmma() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
EVASERVE_PTX void CommitWgmmas() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kGroups>
EVASERVE_PTX void WaitForWgmmas() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

}  // namespace evaserve::ptx

#include "kernels/cuda/wgmma_device.h"

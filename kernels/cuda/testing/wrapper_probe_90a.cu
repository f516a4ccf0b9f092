#include "kernels/cuda/launch.h"
#include "kernels/cuda/testing/wrapper_probe.h"

namespace evaserve {
namespace {

constexpr int kWarpgroup = 128;
constexpr int kBarrierBytes = 8;

template <typename T>
EVASERVE_DEVICE T* Shared(int at) {
  return reinterpret_cast<T*>(ptx::SharedMemory() + at);
}

// --- Barriers and bulk copies

EVASERVE_DEVICE void MakeBarrier(ptx::SharedAddress barrier, int num_threads) {
  if (ptx::ThreadIndex() == 0) {
    ptx::InitBarrier(barrier, num_threads);
    ptx::FenceBarrierInit();
  }
  ptx::SyncBlock();
}

EVASERVE_KERNEL(kWarpgroup, 1) MbarrierKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int thread = ptx::ThreadIndex();
  const ptx::SharedAddress barrier = ptx::AddressOf(Shared<char>(kWarpgroup * sizeof(int)));
  MakeBarrier(barrier, kWarpgroup);
  for (int round = 0; round < args.count; ++round) {
    Shared<int>(0)[thread] = 1000 * round + thread;
    ptx::Arrive(barrier);
    ptx::Wait(barrier, round % 2);
    ptx::WaitAgain(barrier, round % 2);
    static_cast<int*>(args.out)[round * kWarpgroup + thread] =
        Shared<int>(0)[(thread + 1) % kWarpgroup];
    ptx::SyncBlock();
  }
}

// `args.count` bytes a round.
EVASERVE_KERNEL(kWarpgroup, 1) CopyBulkKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  constexpr int kFirst = 16;
  const int bytes = args.count;
  const ptx::SharedAddress to = ptx::AddressOf(Shared<char>(0)), barrier = to + bytes;
  MakeBarrier(barrier, 1);
  for (int round = 0; round < 2; ++round) {
    const char* const from = static_cast<const char*>(args.in[0]) + round * bytes;
    if (ptx::ThreadIndex() == 0) {
      ptx::ArriveExpecting(barrier, bytes);
      ptx::CopyBulk(to, from, kFirst, barrier);
      ptx::CopyBulk(to + kFirst, from + kFirst, bytes - kFirst, barrier);
    }
    ptx::Wait(barrier, round);
    for (int i = ptx::ThreadIndex(); i < bytes; i += kWarpgroup) {
      static_cast<char*>(args.out)[round * bytes + i] = *Shared<char>(i);
    }
    ptx::SyncBlock();
  }
}

struct BoxArgs {
  ptx::TensorMap map;
  int bytes, column, row;
  char* out;
};
EVASERVE_KERNEL(kWarpgroup, 1) CopyBoxKernel(const EVASERVE_GRID_CONSTANT BoxArgs args) {
  const ptx::SharedAddress to = ptx::AddressOf(Shared<char>(0)), barrier = to + args.bytes;
  MakeBarrier(barrier, 1);
  if (ptx::ThreadIndex() == 0) {
    ptx::ArriveExpecting(barrier, args.bytes);
    ptx::CopyBox(to, &args.map, args.column, args.row, barrier);
  }
  ptx::Wait(barrier, 0);
  for (int i = ptx::ThreadIndex(); i < args.bytes; i += kWarpgroup) args.out[i] = *Shared<char>(i);
}

// --- Products

constexpr int kQueries = 64, kSlots = 128, kValueSteps = kSlots / 16;

// Matrices in shared memory, one after the other: rows of one swizzle in blocks as wide as it.
template <int kHeadDim>
struct Matrices {
  static constexpr bool kIs128 = kHeadDim % 64 == 0;
  static constexpr ptx::Swizzle kSwizzle =
      kIs128 ? ptx::Swizzle::k128Bytes : ptx::Swizzle::k64Bytes;
  static constexpr int kRowBytes = kIs128 ? 128 : 64;
  static constexpr int kGroupBytes = 8 * kRowBytes;
  static constexpr int kQueryBytes = kQueries * kHeadDim * 2, kSlotBytes = kSlots * kHeadDim * 2;
  static constexpr int kStepsPerBlock = kRowBytes / 32;

  // Columns 16 * step and on, summed over, of a matrix of `rows` rows.
  EVASERVE_DEVICE static ptx::Descriptor KMajor(int at, int rows, int step) {
    const ptx::Descriptor first =
        ptx::MatrixDescriptor(ptx::AddressOf(Shared<char>(at)), kSwizzle, 16, kGroupBytes);
    return ptx::Advance(first,
                        step / kStepsPerBlock * (rows * kRowBytes) + step % kStepsPerBlock * 32);
  }
  // Rows 16 * step and on, summed over, of kSlots rows.
  EVASERVE_DEVICE static ptx::Descriptor MnMajor(int at, int step) {
    const ptx::Descriptor first = ptx::MatrixDescriptor(ptx::AddressOf(Shared<char>(at)), kSwizzle,
                                                        kSlots * kRowBytes, kGroupBytes);
    return ptx::Advance(first, step * 2 * kGroupBytes);
  }
};

EVASERVE_DEVICE void CopyToShared(int to, const void* from, int bytes, int num_threads) {
  for (int i = ptx::ThreadIndex() * 4; i < bytes; i += num_threads * 4) {
    *Shared<uint32_t>(to + i) =
        *reinterpret_cast<const uint32_t*>(static_cast<const char*>(from) + i);
  }
}
// Makes it visible to wgmma.
EVASERVE_DEVICE void PublishShared() {
  ptx::FenceAsync();
  ptx::SyncBlock();
}

template <int kCount, typename T>
EVASERVE_DEVICE void Load(T (&to)[kCount], const void* from, int thread) {
  EVASERVE_UNROLL
  for (int i = 0; i < kCount; ++i) to[i] = static_cast<const T*>(from)[thread * kCount + i];
}
template <int kCount>
EVASERVE_DEVICE void Store(const float (&from)[kCount], float* to, int thread) {
  EVASERVE_UNROLL
  for (int i = 0; i < kCount; ++i) to[thread * kCount + i] = from[i];
}

template <DType kType, int kHeadDim>
EVASERVE_DEVICE void MultiplyKeys(float (&d)[kSlots / 2], int queries, int keys, bool accumulate) {
  using M = Matrices<kHeadDim>;
  EVASERVE_UNROLL
  for (int k = 0; k < kHeadDim / 16; ++k) {
    ptx::WgmmaShared<kType, kSlots>(d, M::KMajor(queries, kQueries, k), M::KMajor(keys, kSlots, k),
                                    accumulate || k != 0);
  }
  ptx::CommitWgmmas();
}
template <DType kType, int kHeadDim>
EVASERVE_DEVICE void MultiplyValues(float (&d)[kHeadDim / 2],
                                    const uint32_t (&weights)[4 * kValueSteps], int values,
                                    bool accumulate) {
  EVASERVE_UNROLL
  for (int k = 0; k < kValueSteps; ++k) {
    ptx::WgmmaRegisters<kType, kHeadDim>(d, weights + 4 * k, Matrices<kHeadDim>::MnMajor(values, k),
                                         accumulate || k != 0);
  }
  ptx::CommitWgmmas();
}

template <DType kType, int kHeadDim>
EVASERVE_KERNEL(kWarpgroup, 1)
WgmmaSharedKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  using M = Matrices<kHeadDim>;
  CopyToShared(0, args.in[0], M::kQueryBytes, kWarpgroup);
  CopyToShared(M::kQueryBytes, args.in[1], M::kSlotBytes, kWarpgroup);
  PublishShared();
  float d[kSlots / 2];
  Load(d, args.in[2], ptx::ThreadIndex());
  ptx::Pin(d);
  ptx::FenceWgmma();
  MultiplyKeys<kType, kHeadDim>(d, 0, M::kQueryBytes, /*accumulate=*/true);
  ptx::WaitForWgmmas<0>();
  ptx::Pin(d);
  Store(d, static_cast<float*>(args.out), ptx::ThreadIndex());
}

template <DType kType, int kHeadDim>
EVASERVE_KERNEL(kWarpgroup, 1)
WgmmaRegistersKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  CopyToShared(0, args.in[1], Matrices<kHeadDim>::kSlotBytes, kWarpgroup);
  PublishShared();
  uint32_t weights[4 * kValueSteps];
  float d[kHeadDim / 2];
  Load(weights, args.in[0], ptx::ThreadIndex());
  Load(d, args.in[2], ptx::ThreadIndex());
  ptx::Pin(weights);
  ptx::Pin(d);
  ptx::FenceWgmma();
  MultiplyValues<kType, kHeadDim>(d, weights, 0, /*accumulate=*/true);
  ptx::WaitForWgmmas<0>();
  ptx::Pin(d);
  Store(d, static_cast<float*>(args.out), ptx::ThreadIndex());
}

// Registers of the wide kernel: attend_wide.cuh.
template <DType kType, int kHeadDim>
EVASERVE_KERNEL(3 * kWarpgroup, 1)
WgmmaPairKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  using M = Matrices<kHeadDim>;
  CopyToShared(0, args.in[0], M::kQueryBytes + 2 * M::kSlotBytes, 3 * kWarpgroup);
  PublishShared();
  const int warpgroup = ptx::UniformInWarp(ptx::ThreadIndex() / kWarpgroup);
  if (warpgroup == 0) {
    ptx::ShrinkRegisters<40>();
    return;
  }
  ptx::GrowRegisters<232>();
  const int thread = ptx::ThreadIndex() % kWarpgroup;
  uint32_t weights[4 * kValueSteps];
  Load(weights, args.in[1], thread);
  ptx::Pin(weights);
  float logits[kSlots / 2], sums[kHeadDim / 2];
  ptx::FenceWgmma();
  MultiplyKeys<kType, kHeadDim>(logits, 0, M::kQueryBytes, /*accumulate=*/false);
  MultiplyValues<kType, kHeadDim>(sums, weights, M::kQueryBytes + M::kSlotBytes,
                                  /*accumulate=*/false);
  constexpr int kOutFloats = kWarpgroup * (kSlots + kHeadDim) / 2;
  float* const out = static_cast<float*>(args.out) + (warpgroup - 1) * kOutFloats;
  ptx::WaitForWgmmas<1>();
  ptx::Pin(logits);
  Store(logits, out, thread);
  ptx::WaitForWgmmas<0>();
  ptx::Pin(sums);
  Store(sums, out + kWarpgroup * kSlots / 2, thread);
}

}  // namespace

Probe MbarrierProbe(int rounds) {
  return [=](ProbeArgs args, void* stream) {
    args.count = rounds;
    return LaunchKernel(MbarrierKernel, {1, kWarpgroup, kWarpgroup * sizeof(int) + kBarrierBytes},
                        args, static_cast<GpuStream>(stream));
  };
}
Probe CopyBulkProbe(int bytes) {
  return [=](ProbeArgs args, void* stream) {
    args.count = bytes;
    return LaunchKernel(CopyBulkKernel, {1, kWarpgroup, bytes + kBarrierBytes}, args,
                        static_cast<GpuStream>(stream));
  };
}
Probe CopyBoxProbe(const BoxShape& box) {
  return [=](const ProbeArgs& args, void* stream) {
    const int bytes = box.box_rows * box.box_columns * 2;
    BoxArgs box_args{{}, bytes, box.column, box.row, static_cast<char*>(args.out)};
    const std::string error = MakeTensorMap(
        {args.in[0], box.num_columns, box.num_rows, box.row_stride, box.box_columns, box.box_rows},
        &box_args.map);
    if (!error.empty()) return error;
    return LaunchKernel(CopyBoxKernel, {1, kWarpgroup, bytes + kBarrierBytes}, box_args,
                        static_cast<GpuStream>(stream));
  };
}

Probe WgmmaSharedProbe(DType type, int head_dim) {
  return [=](const ProbeArgs& args, void* stream) {
    return DispatchHalfShape(type, head_dim, [&](auto tag, auto dim) {
      using M = Matrices<decltype(dim)::value>;
      return LaunchKernel(WgmmaSharedKernel<decltype(tag)::value, decltype(dim)::value>,
                          {1, kWarpgroup, M::kQueryBytes + M::kSlotBytes}, args,
                          static_cast<GpuStream>(stream));
    });
  };
}
Probe WgmmaRegistersProbe(DType type, int head_dim) {
  return [=](const ProbeArgs& args, void* stream) {
    return DispatchHalfShape(type, head_dim, [&](auto tag, auto dim) {
      return LaunchKernel(WgmmaRegistersKernel<decltype(tag)::value, decltype(dim)::value>,
                          {1, kWarpgroup, Matrices<decltype(dim)::value>::kSlotBytes}, args,
                          static_cast<GpuStream>(stream));
    });
  };
}
Probe WgmmaPairProbe(DType type, int head_dim) {
  return [=](const ProbeArgs& args, void* stream) {
    return DispatchHalfShape(type, head_dim, [&](auto tag, auto dim) {
      using M = Matrices<decltype(dim)::value>;
      return LaunchKernel(WgmmaPairKernel<decltype(tag)::value, decltype(dim)::value>,
                          {1, 3 * kWarpgroup, M::kQueryBytes + 2 * M::kSlotBytes}, args,
                          static_cast<GpuStream>(stream));
    });
  };
}

}  // namespace evaserve

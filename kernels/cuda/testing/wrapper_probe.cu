#include "kernels/cuda/launch.h"
#include "kernels/cuda/testing/wrapper_probe.h"

namespace evaserve {
namespace {

constexpr int kThreads = 128, kLanes = 32;

template <typename T>
EVASERVE_DEVICE const T* In(const ProbeArgs& args, int i) {
  return static_cast<const T*>(args.in[i]);
}
template <typename T>
EVASERVE_DEVICE T* Out(const ProbeArgs& args) {
  return static_cast<T*>(args.out);
}
template <typename T>
EVASERVE_DEVICE T* Shared() {
  return reinterpret_cast<T*>(ptx::SharedMemory());
}

Probe Launching(void (*kernel)(ProbeArgs), const LaunchShape& shape, int count = 0) {
  return [=](ProbeArgs args, void* stream) {
    args.count = count;
    return LaunchKernel(kernel, shape, args, static_cast<GpuStream>(stream));
  };
}
// One thread for each of `count`.
LaunchShape ThreadEach(int count) { return {(count + kThreads - 1) / kThreads, kThreads, 0}; }

EVASERVE_DEVICE int GlobalIndex() { return ptx::BlockIndex() * kThreads + ptx::ThreadIndex(); }

EVASERVE_KERNEL(kThreads, 1) NumbersKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int i = GlobalIndex(), count = args.count;
  if (i >= count) return;
  const float a = In<float>(args, 0)[i], b = In<float>(args, 1)[i], c = In<float>(args, 2)[i];
  float* const out = Out<float>(args) + i;
  out[0] = ptx::Exp2(a);
  out[count] = ptx::Log2(a);
  out[2 * count] = ptx::ReciprocalSqrt(a);
  out[3 * count] = ptx::Fma(a, b, c);
  out[4 * count] = ptx::FloatFromBits(In<uint32_t>(args, 0)[i]);
}

template <DType kType>
EVASERVE_KERNEL(kThreads, 1)
PackKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int i = GlobalIndex();
  if (i >= args.count) return;
  const float* const pair = In<float>(args, 0) + 2 * i;
  Out<uint32_t>(args)[i] = ptx::PackHalves<kType>(pair[0], pair[1]);
}

template <DType kType>
EVASERVE_KERNEL(kThreads, 1)
UnpackKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int i = GlobalIndex();
  if (i >= args.count) return;
  const uint32_t pair = In<uint32_t>(args, 0)[i];
  Out<float>(args)[2 * i] = ptx::LowHalf<kType>(pair);
  Out<float>(args)[2 * i + 1] = ptx::HighHalf<kType>(pair);
}

EVASERVE_KERNEL(1024, 1) IndicesKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int block = ptx::BlockIndex(), thread = ptx::ThreadIndex();
  int* const out = Out<int>(args) + (block * args.count + thread) * 3;
  out[0] = block;
  out[1] = thread;
  out[2] = ptx::NumBlocks();
}

EVASERVE_KERNEL(kLanes, 1) ShuffleKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int lane = ptx::ThreadIndex();
  const float mine = In<float>(args, 0)[lane];
  for (int mask = 0; mask < kLanes; ++mask) {
    Out<float>(args)[mask * kLanes + lane] = ptx::ShuffleXor(mine, mask);
  }
}

EVASERVE_KERNEL(kThreads, 1) UniformKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int thread = ptx::ThreadIndex();
  Out<int>(args)[thread] = ptx::UniformInWarp(In<int>(args, 0)[thread / kLanes]);
}

EVASERVE_KERNEL(kThreads, 1) SyncKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int thread = ptx::ThreadIndex(), lane = thread % kLanes;
  Shared<int>()[thread] = thread + 1;
  ptx::SyncWarp();
  Out<int>(args)[thread] = Shared<int>()[thread - lane + (lane + 1) % kLanes];
  ptx::SyncBlock();
  Out<int>(args)[kThreads + thread] = Shared<int>()[(thread + kLanes + 1) % kThreads];
}

EVASERVE_KERNEL(2 * kLanes, 1) NamedBarrierKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  constexpr int kFull = 1, kEmpty = 2;
  const int lane = ptx::ThreadIndex() % kLanes;
  const bool is_giver = ptx::UniformInWarp(ptx::ThreadIndex() / kLanes) == 0;
  for (int round = 0; round < args.count; ++round) {
    if (is_giver) {
      Shared<int>()[lane] = kLanes * round + lane;
      ptx::ArriveNamed(kFull, 2 * kLanes);
      ptx::SyncNamed(kEmpty, 2 * kLanes);
    } else {
      ptx::SyncNamed(kFull, 2 * kLanes);
      Out<int>(args)[kLanes * round + lane] = Shared<int>()[kLanes - 1 - lane];
      ptx::ArriveNamed(kEmpty, 2 * kLanes);
    }
  }
}

EVASERVE_KERNEL(kThreads, 1) LastBlockKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int thread = ptx::ThreadIndex(), block = ptx::BlockIndex(), num_blocks = ptx::NumBlocks();
  int* const out = Out<int>(args);
  int* const stored = out + 2 + num_blocks;
  stored[GlobalIndex()] = GlobalIndex();
  ptx::FenceMemory();
  ptx::SyncBlock();
  if (thread != 0) return;
  const int before = ptx::AtomicAdd(out, 3);
  out[2 + block] = before;
  if (before != 3 * (num_blocks - 1)) return;
  ptx::FenceMemory();
  int sum = 0;
  for (int i = 0; i < num_blocks * kThreads; ++i) sum += stored[i];
  out[1] = sum;
}

constexpr int kMatrixHalves = 2048;

template <bool kTransposed>
EVASERVE_KERNEL(kLanes, 1)
LoadMatricesKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int lane = ptx::ThreadIndex();
  for (int i = lane; i < kMatrixHalves; i += kLanes) {
    Shared<uint16_t>()[i] = In<uint16_t>(args, 0)[i];
  }
  ptx::SyncBlock();
  uint32_t to[4];
  ptx::LoadMatrices(to, ptx::AddressOf(ptx::SharedMemory() + In<uint32_t>(args, 1)[lane]),
                    kTransposed);
  for (int i = 0; i < 4; ++i) Out<uint32_t>(args)[4 * lane + i] = to[i];
}

template <DType kType>
EVASERVE_KERNEL(kLanes, 1)
MmaKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  const int lane = ptx::ThreadIndex();
  uint32_t a[4];
  float c[4];
  for (int i = 0; i < 4; ++i) {
    a[i] = In<uint32_t>(args, 0)[4 * lane + i];
    c[i] = In<float>(args, 2)[4 * lane + i];
  }
  const uint32_t* const b = In<uint32_t>(args, 1) + 2 * lane;
  ptx::Mma<kType>(c, a, b[0], b[1]);
  for (int i = 0; i < 4; ++i) Out<float>(args)[4 * lane + i] = c[i];
}

constexpr int kWordsInPiece = 4, kGroupWords = kThreads * kWordsInPiece;

EVASERVE_DEVICE void IssueCopy(const ProbeArgs& args, int group) {
  const int thread = ptx::ThreadIndex(), at = group * kGroupWords + thread * kWordsInPiece;
  ptx::CopyAsync(ptx::AddressOf(Shared<uint32_t>() + at), In<uint32_t>(args, 0) + at,
                 In<int>(args, 1)[group * kThreads + thread] != 0);
  ptx::CommitCopies();
}
EVASERVE_DEVICE void StoreGroup(const ProbeArgs& args, int group) {
  ptx::SyncBlock();
  for (int i = ptx::ThreadIndex(); i < kGroupWords; i += kThreads) {
    const int at = group * kGroupWords + i;
    Out<uint32_t>(args)[at] = Shared<uint32_t>()[at];
  }
}
EVASERVE_KERNEL(kThreads, 1) CopyAsyncKernel(const EVASERVE_GRID_CONSTANT ProbeArgs args) {
  IssueCopy(args, 0);
  IssueCopy(args, 1);
  ptx::WaitForCopies<1>();
  StoreGroup(args, 0);
  ptx::WaitForCopies<0>();
  StoreGroup(args, 1);
}

}  // namespace

Probe NumbersProbe(int count) { return Launching(NumbersKernel, ThreadEach(count), count); }
Probe PackProbe(DType type, int count) {
  return [=](const ProbeArgs& args, void* stream) {
    return DispatchHalfType(type, [&](auto tag) {
      return Launching(PackKernel<decltype(tag)::value>, ThreadEach(count), count)(args, stream);
    });
  };
}
Probe UnpackProbe(DType type, int count) {
  return [=](const ProbeArgs& args, void* stream) {
    return DispatchHalfType(type, [&](auto tag) {
      return Launching(UnpackKernel<decltype(tag)::value>, ThreadEach(count), count)(args, stream);
    });
  };
}
Probe IndicesProbe(int num_blocks, int block_size) {
  return Launching(IndicesKernel, {num_blocks, block_size, 0}, block_size);
}
Probe ShuffleProbe() { return Launching(ShuffleKernel, {1, kLanes, 0}); }
Probe UniformProbe() { return Launching(UniformKernel, {1, kThreads, 0}); }
Probe SyncProbe() { return Launching(SyncKernel, {1, kThreads, kThreads * sizeof(int)}); }
Probe NamedBarrierProbe(int rounds) {
  return Launching(NamedBarrierKernel, {1, 2 * kLanes, kLanes * sizeof(int)}, rounds);
}
Probe LastBlockProbe(int num_blocks) {
  return Launching(LastBlockKernel, {num_blocks, kThreads, 0});
}
Probe LoadMatricesProbe(bool transposed) {
  return Launching(transposed ? LoadMatricesKernel<true> : LoadMatricesKernel<false>,
                   {1, kLanes, kMatrixHalves * sizeof(uint16_t)});
}
Probe MmaProbe(DType type) {
  return [=](const ProbeArgs& args, void* stream) {
    return DispatchHalfType(type, [&](auto tag) {
      return Launching(MmaKernel<decltype(tag)::value>, {1, kLanes, 0})(args, stream);
    });
  };
}
Probe CopyAsyncProbe() {
  return Launching(CopyAsyncKernel, {1, kThreads, 2 * kGroupWords * sizeof(uint32_t)});
}

}  // namespace evaserve

#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/store_chunks.cuh"

namespace evaserve {

std::string LaunchStoreChunks(GpuShape shape, const StoreChunksArgs& args, void* stream) {
  return DispatchShape(shape.type, shape.head_dim, [&](auto type, auto head_dim) {
    using Kernel = StoreChunk<decltype(type)::value, decltype(head_dim)::value>;
    const int64_t num_work = int64_t{args.num_chunks} * args.num_heads;
    return LaunchKernel(StoreChunksKernel<decltype(type)::value, decltype(head_dim)::value>,
                        {(num_work + Kernel::kWarps - 1) / Kernel::kWarps, Kernel::kThreads, 0},
                        args, static_cast<GpuStream>(stream));
  });
}

}  // namespace evaserve

#include "kernels/cuda/attend_narrow.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchAttendNarrow(GpuShape shape, const NarrowAttendArgs& args, int num_blocks,
                               void* stream) {
  return DispatchHalfShape(shape.type, shape.head_dim, [&](auto type, auto head_dim) {
    using Kernel = NarrowAttend<decltype(type)::value, decltype(head_dim)::value>;
    static_assert(Kernel::kRows == kNarrowTileRows);
    return LaunchKernel(AttendNarrowKernel<decltype(type)::value, decltype(head_dim)::value>,
                        {num_blocks, Kernel::kThreads, Kernel::kSharedBytes}, args,
                        static_cast<GpuStream>(stream));
  });
}

int NarrowBlocksPerMultiprocessor(GpuShape shape) {
  int num_blocks = 1;
  DispatchHalfShape(shape.type, shape.head_dim, [&](auto type, auto head_dim) -> std::string {
    using Kernel = NarrowAttend<decltype(type)::value, decltype(head_dim)::value>;
    num_blocks = BlocksPerMultiprocessor(
        AttendNarrowKernel<decltype(type)::value, decltype(head_dim)::value>, Kernel::kThreads,
        Kernel::kSharedBytes);
    return "";
  });
  return num_blocks;
}

int NarrowPartialFloats(int head_dim) { return kNarrowTileRows * (head_dim + 2); }

}  // namespace evaserve

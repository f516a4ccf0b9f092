#include "kernels/cuda/attend_narrow.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchAttendNarrow(GpuShape shape, const NarrowAttendArgs& args, int num_blocks,
                               void* stream) {
  return DispatchShape(shape.type, shape.head_dim, [&](auto type, auto head_dim) {
    using Kernel = NarrowAttend<decltype(type)::value, decltype(head_dim)::value>;
    static_assert(Kernel::kRows == kNarrowTileRows);
    return LaunchKernel(AttendNarrowKernel<decltype(type)::value, decltype(head_dim)::value>,
                        {num_blocks, Kernel::kThreads, Kernel::kSharedBytes}, args,
                        static_cast<GpuStream>(stream));
  });
}

int NarrowPartialFloats(int head_dim) { return kNarrowTileRows * (head_dim + 2); }

}  // namespace evaserve

#include "kernels/cuda/attend_float.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchAttendFloat(int head_dim, const CudaAttendArgs& args, void* stream) {
  return DispatchHeadDim(head_dim, [&](auto dim) {
    using Kernel = FloatAttend<decltype(dim)::value>;
    static_assert(Kernel::kRows == kFloatTileRows);
    return LaunchKernel(
        AttendFloatKernel<decltype(dim)::value>,
        {int64_t{args.num_tiles} * args.num_heads, Kernel::kThreads, Kernel::kSharedBytes}, args,
        static_cast<GpuStream>(stream));
  });
}

}  // namespace evaserve

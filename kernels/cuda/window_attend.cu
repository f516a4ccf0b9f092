#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/window_attend.cuh"
#include "kernels/cuda/window_attend_float.cuh"

namespace evaserve {

std::string LaunchWindowAttend(DType type, const WindowAttendArgs& args, void* stream) {
  const int64_t num_blocks = int64_t{args.num_tiles} * args.num_heads;
  if (type == DType::kFloat32) {
    using Kernel = FloatWindowAttend;
    static_assert(Kernel::kRows == kFloatTileRows);
    return LaunchKernel(WindowAttendFloatKernel,
                        {num_blocks, Kernel::kThreads, Kernel::kSharedBytes}, args,
                        static_cast<GpuStream>(stream));
  }
  return DispatchHalfType(type, [&](auto tag) {
    return DispatchHeadRoom(args.head_dim, [&](auto dim) {
      using Kernel = WindowAttend<decltype(tag)::value, decltype(dim)::value>;
      static_assert(Kernel::kMaxRows == kWindowTileRows);
      return LaunchKernel(WindowAttendKernel<decltype(tag)::value, decltype(dim)::value>,
                          {num_blocks, args.tile_rows * 2, Kernel::kSharedBytes}, args,
                          static_cast<GpuStream>(stream));
    });
  });
}

}  // namespace evaserve

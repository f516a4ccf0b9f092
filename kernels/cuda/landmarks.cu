#include "kernels/cuda/landmarks.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchLandmarks(DType type, const LandmarksArgs& args, void* stream) {
  return DispatchType(type, [&](auto tag) {
    return DispatchHeadRoom(args.head_dim, [&](auto dim) {
      using Kernel = Landmarks<decltype(tag)::value, decltype(dim)::value>;
      return LaunchKernel(
          LandmarksKernel<decltype(tag)::value, decltype(dim)::value>,
          {int64_t{args.num_groups} * args.num_heads, Kernel::kThreads, Kernel::kSharedBytes}, args,
          static_cast<GpuStream>(stream));
    });
  });
}

}  // namespace evaserve

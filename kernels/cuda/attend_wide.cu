#include <algorithm>

#include "kernels/cuda/attend_wide.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchAttendWide(GpuShape shape, const CudaAttendArgs& args, const WideLaunch& launch,
                             void* stream) {
  return DispatchHalfShape(shape.type, shape.head_dim, [&](auto type, auto head_dim) {
    constexpr int kHeadDim = decltype(head_dim)::value;
    using Shape = WideShape<kHeadDim>;
    static_assert(Shape::kRows == kWideTileRows && Shape::Image::kBlockBytes <= kZeroBytes);
    WideAttendArgs wide;
    wide.attend = args;
    wide.zeros = launch.zeros;
    const std::string error =
        MakeTensorMap({args.q, int64_t{args.num_heads} * kHeadDim, launch.num_tokens, args.q_stride,
                       Shape::Image::kBlockColumns, Shape::kRows},
                      &wide.q);
    if (!error.empty()) return error;
    const int64_t num_work = int64_t{args.num_tiles} * args.num_heads;
    return LaunchKernel(AttendWideKernel<decltype(type)::value, kHeadDim>,
                        {std::min<int64_t>(num_work, launch.num_multiprocessors), Shape::kThreads,
                         Shape::kSharedBytes},
                        wide, static_cast<GpuStream>(stream));
  });
}

}  // namespace evaserve

#include "kernels/cuda/attend_portable.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchAttendPortable(GpuShape shape, const CudaAttendArgs& args, void* stream) {
  return DispatchHalfShape(shape.type, shape.head_dim, [&](auto type, auto head_dim) {
    using Kernel = PortableAttend<decltype(type)::value, decltype(head_dim)::value>;
    static_assert(Kernel::kRows == kPortableTileRows);
    return LaunchKernel(
        AttendPortableKernel<decltype(type)::value, decltype(head_dim)::value>,
        {int64_t{args.num_tiles} * args.num_heads, Kernel::kThreads, Kernel::kSharedBytes}, args,
        static_cast<GpuStream>(stream));
  });
}

}  // namespace evaserve

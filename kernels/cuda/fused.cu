#include "kernels/cuda/fused.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchAddRmsNorm(DType type, const AddRmsNormArgs& args, int num_rows, void* stream) {
  return DispatchType(type, [&](auto tag) {
    return LaunchKernel(AddRmsNormKernel<decltype(tag)::value>,
                        {num_rows, kFusedThreads, kFusedThreads / 32 * 4}, args,
                        static_cast<GpuStream>(stream));
  });
}

std::string LaunchSwiGlu(DType type, const SwiGluArgs& args, void* stream) {
  return DispatchType(type, [&](auto tag) {
    const int64_t num_threads = int64_t{args.rows} * args.size / 8;
    return LaunchKernel(SwiGluKernel<decltype(tag)::value>,
                        {(num_threads + kFusedThreads - 1) / kFusedThreads, kFusedThreads, 0}, args,
                        static_cast<GpuStream>(stream));
  });
}

}  // namespace evaserve

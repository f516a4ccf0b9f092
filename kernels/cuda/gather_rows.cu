#include "kernels/cuda/gather_rows.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/launchers.h"

namespace evaserve {

std::string LaunchGatherRows(const GatherRowsArgs& args, int num_rows, void* stream) {
  return LaunchKernel(GatherRowsKernel, {num_rows, kGatherThreads, 0}, args,
                      static_cast<GpuStream>(stream));
}

std::string LaunchScatterRows(const GatherRowsArgs& args, int num_rows, void* stream) {
  return LaunchKernel(ScatterRowsKernel, {num_rows, kGatherThreads, 0}, args,
                      static_cast<GpuStream>(stream));
}

}  // namespace evaserve

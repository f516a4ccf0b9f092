#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa_tables.h"

namespace evaserve {

const CpuKernels& Avx2Kernels() {
  static constexpr CpuKernels kKernels = MakeKernels("avx2");
  return kKernels;
}

}  // namespace evaserve

#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa_tables.h"

namespace evaserve {

const CpuKernels& Avx512Bf16Kernels() {
  static constexpr CpuKernels kKernels = MakeKernels("avx512bf16");
  return kKernels;
}

}  // namespace evaserve

#include "kernels/cpu/isa/kernels.h"
#include "kernels/cpu/isa_tables.h"

namespace evaserve {

const CpuKernels& BaselineKernels() {
  static constexpr CpuKernels kKernels = MakeKernels("baseline");
  return kKernels;
}

}  // namespace evaserve

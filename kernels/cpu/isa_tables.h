#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace evaserve {

// One per file isa_*.cc. All but the baseline may only be called on a machine that has the
// instructions.
const CpuKernels& BaselineKernels();
const CpuKernels& Avx2Kernels();
const CpuKernels& Avx512Bf16Kernels();

}  // namespace evaserve

#include "kernels/cpu/cpu_kernels.h"

#include <cstdlib>

#include "kernels/cpu/isa_tables.h"

namespace evaserve {
namespace {

#ifdef EVASERVE_X86_KERNELS
bool MachineHasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool MachineHasAvx512Bf16() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16");
}
#endif

const CpuKernels* Choose() {
  const char* forced = std::getenv("EVASERVE_CPU_ISA");
  if (forced != nullptr) {
    if (const CpuKernels* kernels = FindCpuKernels(forced)) return kernels;
  }
  for (const char* name : {"avx512bf16", "avx2"}) {
    if (const CpuKernels* kernels = FindCpuKernels(name)) return kernels;
  }
  return &BaselineKernels();
}

const CpuKernels*& Chosen() {
  static const CpuKernels* chosen = Choose();
  return chosen;
}

}  // namespace

const CpuKernels& GetCpuKernels() { return *Chosen(); }

const CpuKernels* FindCpuKernels(std::string_view name) {
  if (name == "baseline") return &BaselineKernels();
#ifdef EVASERVE_X86_KERNELS
  if (name == "avx2" && MachineHasAvx2()) return &Avx2Kernels();
  if (name == "avx512bf16" && MachineHasAvx512Bf16()) return &Avx512Bf16Kernels();
#endif
  return nullptr;
}

bool ForceCpuKernels(std::string_view name) {
  const CpuKernels* kernels = FindCpuKernels(name);
  if (kernels != nullptr) Chosen() = kernels;
  return kernels != nullptr;
}

}  // namespace evaserve

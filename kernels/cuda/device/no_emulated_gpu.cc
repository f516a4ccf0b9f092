#include "kernels/cuda/emulator/gpu_emulated.h"

namespace evaserve {

bool SetEmulatedGpu(const EmulatedGpu&) { return false; }

}  // namespace evaserve

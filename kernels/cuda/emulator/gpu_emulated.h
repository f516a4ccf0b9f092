#pragma once

#include <cstdint>

namespace evaserve {

// What Gpu::Open() of the emulator opens.
struct EmulatedGpu {
  int compute_capability = 90;
  int num_multiprocessors = 3;
  int64_t total_bytes = int64_t{1} << 30;
};
void SetEmulatedGpu(const EmulatedGpu& gpu);

}  // namespace evaserve

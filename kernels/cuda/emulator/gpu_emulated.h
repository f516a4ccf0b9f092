#pragma once

#include <cstdint>

namespace evaserve {

// What Gpu::Open() opens in tests whose devices are emulated.
struct EmulatedGpu {
  int compute_capability = 90;
  int num_multiprocessors = 3;
  int64_t total_bytes = int64_t{1} << 30;
};

// Sets it. False, and nothing is set, in a program with real devices.
bool SetEmulatedGpu(const EmulatedGpu& gpu);

}  // namespace evaserve

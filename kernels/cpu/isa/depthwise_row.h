#pragma once

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/vector.h"

namespace evaserve {
namespace {

// Adds the three taps of one row of the kernel at place `x`, for kLanes channels from `channel` on.
EVASERVE_INLINE Vec AddTaps(const float* row, const float* weight, const DepthwiseRow& args, int x,
                            int channel, Vec sum) {
  const int left = args.channels - channel;
  for (int dx = -1; dx <= 1; ++dx) {
    if (x + dx < 0 || x + dx >= args.width) continue;
    const Vec value = LoadPartial(row + int64_t{x + dx} * args.channels + channel, left);
    sum = Fma(value, LoadPartial(weight + int64_t{dx + 1} * args.channels + channel, left), sum);
  }
  return sum;
}

void ConvolveRow(const DepthwiseRow& args) {
  const float* const rows[] = {args.above, args.row, args.below};
  for (int x = 0; x < args.width; ++x) {
    for (int channel = 0; channel < args.channels; channel += kLanes) {
      const int left = args.channels - channel;
      Vec sum = LoadPartial(args.bias + channel, left);
      for (int dy = 0; dy < 3; ++dy) {
        if (rows[dy] == nullptr) continue;
        sum =
            AddTaps(rows[dy], args.weight + int64_t{dy} * 3 * args.channels, args, x, channel, sum);
      }
      StorePartial(args.y + int64_t{x} * args.channels + channel, sum, left);
    }
  }
}

}  // namespace
}  // namespace evaserve

#pragma once

#include <cstdint>

namespace evaserve {

// A convolution's input as rows for a matrix product. Immutable values.
struct PatchesParams {
  // One map: element (channel, y, x) is at channel * channel_stride + y * row_stride + x *
  // column_stride.
  const float* x = nullptr;
  int64_t channel_stride = 0, row_stride = 0, column_stride = 0;
  int channels = 0, height = 0, width = 0;
  int kernel = 0, stride = 0, padding = 0;
  float* y = nullptr;  // [out_height() * out_width(), channels * kernel * kernel]

  int out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
  int out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
  int row_size() const { return channels * kernel * kernel; }
};

// Row by row, what each place of the result sees, in the order of a PyTorch weight's [channels,
// kernel, kernel]. Outside of the map there are zeros.
void GatherPatches(const PatchesParams& params);

}  // namespace evaserve

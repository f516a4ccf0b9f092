#include "models/vision/patches.h"

namespace evaserve {
namespace {

void GatherOne(const PatchesParams& p, int top, int left, float* to) {
  for (int channel = 0; channel < p.channels; ++channel) {
    const float* plane = p.x + channel * p.channel_stride;
    for (int y = top; y < top + p.kernel; ++y) {
      for (int x = left; x < left + p.kernel; ++x) {
        const bool is_inside = y >= 0 && y < p.height && x >= 0 && x < p.width;
        *to++ = is_inside ? plane[y * p.row_stride + x * p.column_stride] : 0.f;
      }
    }
  }
}

}  // namespace

void GatherPatches(const PatchesParams& params) {
  float* to = params.y;
  for (int y = 0; y < params.out_height(); ++y) {
    for (int x = 0; x < params.out_width(); ++x) {
      GatherOne(params, y * params.stride - params.padding, x * params.stride - params.padding, to);
      to += params.row_size();
    }
  }
}

}  // namespace evaserve

#include "kernels/depthwise_conv.h"

namespace evaserve {
namespace {

double Sum(const DepthwiseConvParams& p, const float* map, int y, int x, int channel) {
  double sum = p.bias[channel];
  for (int dy = -1; dy <= 1; ++dy) {
    for (int dx = -1; dx <= 1; ++dx) {
      if (y + dy < 0 || y + dy >= p.height || x + dx < 0 || x + dx >= p.width) continue;
      const int64_t tap = (dy + 1) * 3 + dx + 1;
      const int64_t place = int64_t{y + dy} * p.width + x + dx;
      sum += double{p.weight[tap * p.channels + channel]} * map[place * p.channels + channel];
    }
  }
  return sum;
}

}  // namespace

void DepthwiseConvReference(const DepthwiseConvParams& params) {
  float* to = params.y;
  for (int i = 0; i < params.batch; ++i) {
    const float* map = params.x + int64_t{i} * params.height * params.width * params.channels;
    for (int y = 0; y < params.height; ++y) {
      for (int x = 0; x < params.width; ++x) {
        for (int channel = 0; channel < params.channels; ++channel) {
          *to++ = static_cast<float>(Sum(params, map, y, x, channel));
        }
      }
    }
  }
}

}  // namespace evaserve

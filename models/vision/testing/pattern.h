#pragma once

#include <cstdint>

#include "models/vision/image.h"

namespace evaserve {

// Pixels that look random and are the same everywhere.
inline Image Pattern(int width, int height) {
  Image image{width, height};
  uint32_t x = 1;
  for (int i = 0; i < width * height * 3; ++i) {
    x = x * 1664525 + 1013904223;
    image.rgb.push_back(static_cast<uint8_t>(x >> 24));
  }
  return image;
}

}  // namespace evaserve

#pragma once

#include <cstdint>
#include <vector>

namespace evaserve {

// Pixels of 8-bit red, green and blue, row by row.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3]
};

}  // namespace evaserve

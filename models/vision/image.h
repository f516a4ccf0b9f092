#pragma once

#include <cstdint>
#include <vector>

namespace evaserve {

inline constexpr int kImageChannels = 3;  // red, green, blue

// Pixels of 8 bits a channel, row by row.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // [height, width, kImageChannels]
};

}  // namespace evaserve

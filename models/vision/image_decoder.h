#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "models/vision/image.h"

namespace evaserve {

// Pixels of the largest image that is decoded: what a request of some kilobytes may cost.
inline constexpr int64_t kMaxImagePixels = 64 << 20;

struct ImageSize {
  int64_t width = 0, height = 0;

  int64_t pixels() const { return width * height; }
};

// What a JPEG or a PNG file says of its size, without a look at its pixels.
//
// InvalidArgument for anything else, and for more than kMaxImagePixels.
absl::StatusOr<ImageSize> ReadImageSize(std::string_view file);

// Decodes a JPEG or a PNG file with the libraries of these names. Grey becomes three equal
// channels, an alpha channel is dropped, 16 bits become 8. Orientation tags are not applied.
//
// InvalidArgument where ReadImageSize() says so, and for a file that is damaged or cut.
absl::StatusOr<Image> DecodeImage(std::string_view file);

}  // namespace evaserve

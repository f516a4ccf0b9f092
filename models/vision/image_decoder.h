#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "models/vision/image.h"

namespace evaserve {

// Pixels of the largest image that is decoded: what a request of some kilobytes may cost.
inline constexpr int64_t kMaxImagePixels = 64 << 20;

// Decodes a JPEG or a PNG file with the libraries of these names. Grey becomes three equal
// channels, an alpha channel is dropped, 16 bits become 8. Orientation tags are not applied.
//
// InvalidArgument for anything else, for a file that is damaged or cut, and for more than
// kMaxImagePixels.
absl::StatusOr<Image> DecodeImage(std::string_view file);

}  // namespace evaserve

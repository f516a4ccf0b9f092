// An image file from anywhere: it is decoded and scaled, or refused.

#include <cstdlib>
#include <string_view>

#include "models/vision/image_decoder.h"
#include "models/vision/resize.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto header = evaserve::ReadImageSize(file);
  const auto image = evaserve::DecodeImage(file);
  if (!image.ok()) return 0;
  if (!header.ok() || header->width != image->width || header->height != image->height) {
    std::abort();
  }
  const size_t bytes = size_t{3} * static_cast<size_t>(image->width) * image->height;
  if (image->rgb.size() != bytes) std::abort();
  // Large ones take too long to be done often.
  if (bytes > 1 << 20) return 0;
  const evaserve::Image small =
      evaserve::Resize(*image, /*width=*/7, /*height=*/5, evaserve::Resample::kBicubic);
  if (evaserve::CenterCrop(small, 9, 3, evaserve::CropRounding::kEven).rgb.size() != 9 * 3 * 3)
    std::abort();
  return 0;
}

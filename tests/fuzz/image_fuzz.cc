// An image file from anywhere: it is decoded and scaled, or refused.

#include <cstdlib>
#include <string_view>

#include "models/vision/image_decoder.h"
#include "models/vision/resize.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto image =
      evaserve::DecodeImage(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!image.ok()) return 0;
  const size_t bytes = size_t{3} * static_cast<size_t>(image->width) * image->height;
  if (image->rgb.size() != bytes) std::abort();
  // Large ones take too long to be done often.
  if (bytes > 1 << 20) return 0;
  const evaserve::Image small =
      evaserve::Resize(*image, /*width=*/7, /*height=*/5, evaserve::Resample::kBicubic);
  if (evaserve::CenterCrop(small, 9, 3).rgb.size() != 9 * 3 * 3) std::abort();
  return 0;
}

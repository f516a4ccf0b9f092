#pragma once

#include <png.h>

#include <cstdlib>
#include <string>

#include "models/vision/image.h"

namespace evaserve {

// The image as a PNG file.
inline std::string PngFile(const Image& image) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string file(size, '\0');
  if (png_image_write_to_memory(&png, file.data(), &size, 0, image.rgb.data(), 0, nullptr) == 0) {
    std::abort();
  }
  file.resize(size);
  return file;
}

}  // namespace evaserve

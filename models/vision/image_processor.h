#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/vision/resize.h"

namespace evaserve {

// How an image becomes a model's input, in this order.
struct ImageProcessing {
  // Scale to height x width, or the shorter side to shortest_edge; neither if both are 0.
  int resize_height = 0, resize_width = 0;
  int shortest_edge = 0;
  Resample resample = Resample::kBicubic;
  // Cut the middle out; 0: all of it stays.
  int crop_height = 0, crop_width = 0;
  CropRounding crop_rounding = CropRounding::kDown;
  // x * rescale_factor, then (x - mean) / std for each channel.
  float rescale_factor = 1.f / 255;
  std::array<float, 3> mean = {0, 0, 0};
  std::array<float, 3> std = {1, 1, 1};

  // "resize to 32x32 (bicubic), ...": for metadata.
  std::string Describe() const;
};

// Reads preprocessor_config.json of `directory`, in the form of Hugging Face's image processors,
// for a model whose input is `image_size` x `image_size`. Without the file: what DeiT's evaluation
// does, 256/224 of the size on the shorter side, bicubic, the middle (as torchvision cuts it), and
// ImageNet's mean and deviation. For a size of up to 32 it neither scales nor cuts; images of other
// sizes, for which it has no answer, are scaled to that size.
//
// InvalidArgument, naming the file and the key, for a value that is malformed or not supported, and
// for steps that do not end in an image of that size.
absl::StatusOr<ImageProcessing> ReadImageProcessing(const std::filesystem::path& directory,
                                                    int image_size);

// How many pixels a file has, or on its way through ProcessImage() if that is more. Looks at its
// header only. InvalidArgument as ReadImageSize(), and for more than kMaxImagePixels.
absl::StatusOr<int64_t> CountPixels(std::string_view file, const ImageProcessing& processing);

// Decodes a JPEG or PNG file and writes [3, height, width] floats to `pixels`, of the size that
// `processing` ends in. InvalidArgument as DecodeImage()
// and CountPixels().
absl::Status ProcessImage(std::string_view file, const ImageProcessing& processing, float* pixels);

}  // namespace evaserve

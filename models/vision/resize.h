#pragma once

#include "models/vision/image.h"

namespace evaserve {

// By the numbers that Pillow and Hugging Face give them.
enum class Resample { kNearest = 0, kBilinear = 2, kBicubic = 3 };

// Scales an image to `width` x `height`, both at least 1. Where it becomes smaller the filter is
// stretched, so that every pixel counts (antialiasing). Rounds as Pillow's Image.resize() does,
// after the rows and after the columns, so that models see what they saw in training. (Pillow 13
// takes columns first for some sizes, others never did.)
Image Resize(const Image& image, int width, int height, Resample resample);

// Where the middle is if an odd number of pixels is cut off.
enum class CropRounding {
  kDown,  // Hugging Face's image processors
  kEven,  // torchvision and timm: half of the number, rounded to the even of its neighbours
};

// The middle of an image, filled up with black where it is smaller.
Image CenterCrop(const Image& image, int width, int height, CropRounding rounding);

}  // namespace evaserve

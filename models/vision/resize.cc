#include "models/vision/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace evaserve {
namespace {

// Bits of a weight's fraction: sums of 8-bit pixels stay below 2^31.
constexpr int kPrecision = 32 - 8 - 2;

double Bilinear(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

// Keys' cubic with a = -0.5.
double Bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

struct Filter {
  double (*weight)(double x);
  double support;  // no weight beyond
};

// The input pixels of one output pixel.
struct Taps {
  int begin = 0;
  std::vector<int> weights;  // times 2^kPrecision
};

std::vector<Taps> MakeTaps(int from, int to, const Filter& filter) {
  const double scale = static_cast<double>(from) / to;
  const double stretch = std::max(scale, 1.0);
  const double support = filter.support * stretch;
  std::vector<Taps> all(to);
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    const int begin = std::max(0, static_cast<int>(std::lround(center - support)));
    const int end = std::min(from, static_cast<int>(std::lround(center + support)));
    std::vector<double> weights;
    double sum = 0;
    for (int j = begin; j < end; ++j) {
      sum += weights.emplace_back(filter.weight((j - center + 0.5) / stretch));
    }
    all[i].begin = begin;
    for (const double weight : weights) {
      all[i].weights.push_back(static_cast<int>(std::lround(weight / sum * (1 << kPrecision))));
    }
  }
  return all;
}

uint8_t Round(int sum) {
  return static_cast<uint8_t>(std::clamp((sum + (1 << (kPrecision - 1))) >> kPrecision, 0, 255));
}

// One output pixel from input pixels that lie `stride` bytes apart.
void Mix(const uint8_t* first, int64_t stride, const Taps& taps, uint8_t* to) {
  for (int channel = 0; channel < kImageChannels; ++channel) {
    int sum = 0;
    for (size_t j = 0; j < taps.weights.size(); ++j) {
      sum += taps.weights[j] * first[static_cast<int64_t>(j) * stride + channel];
    }
    to[channel] = Round(sum);
  }
}

Image ResizeWidth(const Image& image, int width, const Filter& filter) {
  const std::vector<Taps> taps = MakeTaps(image.width, width, filter);
  Image result{width, image.height,
               std::vector<uint8_t>(size_t(width) * image.height * kImageChannels)};
  uint8_t* to = result.rgb.data();
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row = image.rgb.data() + int64_t{y} * image.width * kImageChannels;
    for (const Taps& one : taps) {
      Mix(row + one.begin * kImageChannels, kImageChannels, one, to);
      to += kImageChannels;
    }
  }
  return result;
}

Image ResizeHeight(const Image& image, int height, const Filter& filter) {
  const std::vector<Taps> taps = MakeTaps(image.height, height, filter);
  Image result{image.width, height,
               std::vector<uint8_t>(size_t(image.width) * height * kImageChannels)};
  const int64_t stride = int64_t{image.width} * kImageChannels;
  uint8_t* to = result.rgb.data();
  for (const Taps& one : taps) {
    const uint8_t* column = image.rgb.data() + one.begin * stride;
    for (int x = 0; x < image.width; ++x) {
      Mix(column + x * kImageChannels, stride, one, to);
      to += kImageChannels;
    }
  }
  return result;
}

Image ResizeNearest(const Image& image, int width, int height) {
  Image result{width, height, std::vector<uint8_t>(size_t(width) * height * kImageChannels)};
  uint8_t* to = result.rgb.data();
  for (int y = 0; y < height; ++y) {
    const int from_y = static_cast<int>((y + 0.5) * image.height / height);
    for (int x = 0; x < width; ++x) {
      const int from_x = static_cast<int>((x + 0.5) * image.width / width);
      const int64_t pixel = int64_t{from_y} * image.width + from_x;
      std::memcpy(to, &image.rgb[pixel * kImageChannels], kImageChannels);
      to += kImageChannels;
    }
  }
  return result;
}

}  // namespace

Image Resize(const Image& image, int width, int height, Resample resample) {
  if (resample == Resample::kNearest) return ResizeNearest(image, width, height);
  const Filter filter = resample == Resample::kBilinear ? Filter{Bilinear, 1} : Filter{Bicubic, 2};
  // A side that stays is not filtered.
  Image result = image.width == width ? image : ResizeWidth(image, width, filter);
  if (result.height != height) result = ResizeHeight(result, height, filter);
  return result;
}

Image CenterCrop(const Image& image, int width, int height, CropRounding rounding) {
  Image result{width, height, std::vector<uint8_t>(size_t(width) * height * kImageChannels)};
  const auto half = [rounding](int x) {
    const double exact = x / 2.0;  // nearbyint() rounds halves to even
    return static_cast<int>(rounding == CropRounding::kEven ? std::nearbyint(exact)
                                                            : std::floor(exact));
  };
  const int left = half(image.width - width), top = half(image.height - height);
  const int begin = std::max(0, -left), end = std::min(width, image.width - left);
  for (int y = std::max(0, -top); y < std::min(height, image.height - top); ++y) {
    const int64_t from = (int64_t{y + top} * image.width + begin + left) * kImageChannels;
    std::memcpy(&result.rgb[(int64_t{y} * width + begin) * kImageChannels], &image.rgb[from],
                size_t(end - begin) * kImageChannels);
  }
  return result;
}

}  // namespace evaserve

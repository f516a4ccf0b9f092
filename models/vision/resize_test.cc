#include "models/vision/resize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "absl/strings/escaping.h"
#include "models/vision/testing/pattern.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

struct ResizeCase {
  int from_width, from_height, width, height;
  Resample resample;
  const char* expected;  // what Pillow 13.0.0's Image.resize() made of Pattern(), in hexadecimal
};

class ResizeTest : public ::testing::TestWithParam<ResizeCase> {};

TEST_P(ResizeTest, IsPillows) {
  const ResizeCase& p = GetParam();

  const Image result = Resize(Pattern(p.from_width, p.from_height), p.width, p.height, p.resample);

  EXPECT_EQ(result.width, p.width);
  EXPECT_EQ(result.height, p.height);
  EXPECT_EQ(
      absl::BytesToHexString({reinterpret_cast<const char*>(result.rgb.data()), result.rgb.size()}),
      p.expected);
}

constexpr ResizeCase kCases[] = {
    {13, 9, 5, 4, Resample::kBicubic,
     "7c7a7f87ab49857a425866a1aa93999671857b7d6a82a0976c7f69698780786562926d85c083827e89677b51"
     "a68d708894b88f7c84a18f975da16994"},
    {13, 9, 5, 4, Resample::kBilinear,
     "7d7d7b86a64e827f4a61699ba38f9a9270837e7e6f84978f6d7f6f6d88817d6867927280b3818080886b7c59"
     "a28d728892b08e80899b9195619f6994"},
    {4, 3, 9, 5, Resample::kBicubic,
     "2a5e8a4249837e1575b3005bc54526c78c00c07c24b04d60ab3d79578e666e8464a96a60d65c53d4792fbd91"
     "14996d2d7238576123678ed53aa3d83fd9df4cfbda53e4ba45b48e376f543f2a1f4e0c075347cc6f57bf7878"
     "a0909e7e98c06473d64e4ec84657ac4571a1447a12be981ea4a23269bf5c33c6a7238fed2559ff4066ff6289"
     "ff6f96"},
    {4, 3, 9, 5, Resample::kBilinear,
     "3c5e8150507b852c6cb51359bd4d31c58709b8702ca94d5ba3406c608e65738663a5725ecf6156c77539bd89"
     "1c9d67347a3d556c2e6197d63ca8d740d4da4af7d751d5b245b28d39745a4133264d1a125150c2715eb77780"
     "9a87a27e90ba696fd1544dc04c5aaa456da1437421b5952ca29c486faf6942baa8388be62e5bf3426af95a83"
     "fb638c"},
    {5, 7, 5, 3, Resample::kBicubic,
     "b18b67c14e5270744d6d989c677b8a946232b9bc9220ab9ec16c96428677b49e3fa89e777e7f6085a29349ab"
     "81"},
    {5, 3, 4, 2, Resample::kNearest, "3c5e81b40c5ea3406c97d63cee2d55fb638cb6f5f9275faf"},
};

INSTANTIATE_TEST_SUITE_P(All, ResizeTest, ::testing::ValuesIn(kCases));

TEST(ResizeSameTest, LeavesAnImageOfThatSize) {
  const Image image = Pattern(7, 5);
  EXPECT_EQ(Resize(image, 7, 5, Resample::kBicubic).rgb, image.rgb);
}

Image Column(std::vector<uint8_t> values) {
  Image image{1, static_cast<int>(values.size())};
  for (const uint8_t value : values) image.rgb.insert(image.rgb.end(), 3, value);
  return image;
}

Image Crop(const Image& image, int width, int height) {
  return CenterCrop(image, width, height, CropRounding::kDown);
}

// int(round((height - crop) / 2.0)) in Python.
TEST(CenterCropTest, RoundsAsTorchvisionIfAskedTo) {
  const auto first = [](int height, int crop) {
    std::vector<uint8_t> rows(height);
    std::iota(rows.begin(), rows.end(), 0);
    return CenterCrop(Column(rows), 1, crop, CropRounding::kEven).rgb[0];
  };
  EXPECT_EQ(first(5, 4), 0);
  EXPECT_EQ(first(7, 4), 2);
  EXPECT_EQ(first(9, 4), 2);
  EXPECT_EQ(first(11, 4), 4);
  EXPECT_EQ(first(10, 4), 3);
}

TEST(CenterCropTest, TakesTheMiddle) {
  EXPECT_EQ(Crop(Column({1, 2, 3, 4, 5}), 1, 3).rgb, Column({2, 3, 4}).rgb);
  EXPECT_EQ(Crop(Column({1, 2, 3, 4}), 1, 1).rgb, Column({2}).rgb);
}

TEST(CenterCropTest, FillsUpWithBlack) {
  EXPECT_EQ(Crop(Column({1, 2}), 1, 4).rgb, Column({0, 1, 2, 0}).rgb);
  EXPECT_EQ(Crop(Column({1, 2}), 1, 3).rgb, Column({0, 1, 2}).rgb);
  EXPECT_THAT(Crop(Column({9}), 3, 1).rgb, ElementsAre(0, 0, 0, 9, 9, 9, 0, 0, 0));
}

}  // namespace
}  // namespace evaserve

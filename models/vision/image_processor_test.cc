#include "models/vision/image_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"
#include "models/vision/testing/pattern.h"
#include "models/vision/testing/png_file.h"

namespace evaserve {
namespace {

absl::StatusOr<ImageProcessing> Read(const char* json, int image_size) {
  TempDir directory;
  WriteFile(directory.path() / "preprocessor_config.json", json);
  return ReadImageProcessing(directory.path(), image_size);
}

TEST(ReadImageProcessingTest, IsDeiTsWithoutAFile) {
  TempDir directory;
  const auto processing = ReadImageProcessing(directory.path(), 224);
  ASSERT_TRUE(processing.ok()) << processing.status();
  EXPECT_EQ(processing->shortest_edge, 256);
  EXPECT_EQ(processing->crop_height, 224);
  EXPECT_EQ(processing->crop_rounding, CropRounding::kEven);
  EXPECT_EQ(processing->resample, Resample::kBicubic);
  EXPECT_FLOAT_EQ(processing->mean[0], 0.485f);
}

TEST(ReadImageProcessingTest, DeiTsNeitherScalesNorCutsSmallImages) {
  TempDir directory;
  const auto processing = ReadImageProcessing(directory.path(), 32);
  ASSERT_TRUE(processing.ok()) << processing.status();
  EXPECT_EQ(processing->resize_height, 32);  // which leaves an image of that size as it is
  EXPECT_EQ(processing->shortest_edge, 0);
  EXPECT_EQ(processing->crop_height, 0);
}

TEST(ReadImageProcessingTest, SaysWhyTheFileCannotBeRead) {
  TempDir directory;
  const auto path = directory.path() / "preprocessor_config.json";
  std::filesystem::create_symlink(path, path);
  EXPECT_THAT(ReadImageProcessing(directory.path(), 224).status(),
              IsError(absl::StatusCode::kInternal, "preprocessor_config.json: Too many levels"));
}

TEST(ReadImageProcessingTest, ReadsWhatHuggingFaceWrites) {
  const auto processing = Read(R"({"do_resize": true, "size": {"height": 32, "width": 32},
      "resample": 2, "do_rescale": true, "rescale_factor": 0.00392156862745098,
      "do_normalize": true, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 1]})",
                               32);
  ASSERT_TRUE(processing.ok()) << processing.status();
  EXPECT_EQ(processing->Describe(),
            "resize to 32x32 (bilinear), times 0.00392157, minus [0.5,0.4,0.3], divided by "
            "[0.5,0.25,1]");
}

TEST(ReadImageProcessingTest, ReadsTheShorterSideAndTheCrop) {
  const auto processing =
      Read(R"({"size": {"shortest_edge": 40, "height": null}, "do_center_crop": true,
      "crop_size": 32, "do_normalize": false, "do_rescale": false})",
           32);
  ASSERT_TRUE(processing.ok()) << processing.status();
  EXPECT_EQ(processing->Describe(),
            "resize the shorter side to 40 (bicubic), crop 32x32, times 1, minus [0,0,0], divided "
            "by [1,1,1]");
}

struct BadProcessing {
  const char* name;
  const char* json;
  const char* message;
};

class BadImageProcessingTest : public ::testing::TestWithParam<BadProcessing> {};

TEST_P(BadImageProcessingTest, IsRefused) {
  EXPECT_THAT(Read(GetParam().json, 32).status(),
              IsError(kInvalid, "preprocessor_config.json", GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadImageProcessingTest,
    ::testing::Values(
        BadProcessing{"Size", R"({"size": "big"})", "\"size\" is \"big\""},
        BadProcessing{"Width", R"({"size": {"height": 32}})", "\"size\""},
        BadProcessing{"Both", R"({"size": {"height": 3, "width": 3, "shortest_edge": 3}})", "size"},
        BadProcessing{"EdgeAndHeight", R"({"size": {"shortest_edge": 40, "height": 32},
            "do_center_crop": true, "crop_size": 32})",
                      "\"size\" is {\"height\":32,\"shortest_edge\":40}"},
        BadProcessing{"EdgeAndNoHeight", R"({"size": {"shortest_edge": 40, "height": "x"},
            "do_center_crop": true, "crop_size": 32})",
                      "\"size\""},
        BadProcessing{"TwoEdges", R"({"size": {"shortest_edge": 40, "longest_edge": 50},
            "do_center_crop": true, "crop_size": 32})",
                      "\"longest_edge\":50"},
        BadProcessing{"CropEdge", R"({"size": 32, "do_center_crop": true,
            "crop_size": {"shortest_edge": 32}})",
                      "\"crop_size\""},
        BadProcessing{"Zero", R"({"size": 0})", "each 1 to 8192"},
        BadProcessing{"NoCrop", R"({"size": 32, "do_center_crop": true})", "\"crop_size\""},
        BadProcessing{"Resample", R"({"size": 32, "resample": 1})", "0 (nearest), 2 (bilinear)"},
        BadProcessing{"Mean", R"({"size": 32, "image_mean": [1, 2]})", "\"image_mean\""},
        BadProcessing{"Std", R"({"size": 32, "image_std": [1, 0, 1]})", "3 numbers above 0"},
        BadProcessing{"Flag", R"({"size": 32, "do_resize": 1})", "\"do_resize\""},
        BadProcessing{"OtherSize", R"({"size": 64})", "end as 64x64, the model takes 32x32"},
        BadProcessing{"AnySize", R"({"size": {"shortest_edge": 32}})", "end as 0x0"},
        BadProcessing{"NoJson", R"({)", "preprocessor_config.json"}),
    [](const auto& info) { return info.param.name; });

TEST(ProcessImageTest, ScalesAndNormalizesEachChannel) {
  const Image image = Pattern(2, 2);
  const ImageProcessing processing{.resize_height = 2,
                                   .resize_width = 2,
                                   .rescale_factor = 0.5f,
                                   .mean = {1, 2, 3},
                                   .std = {1, 2, 4}};
  std::vector<float> pixels(12);
  ASSERT_TRUE(ProcessImage(PngFile(image), processing, pixels.data()).ok());
  for (int channel = 0; channel < 3; ++channel) {
    for (int i = 0; i < 4; ++i) {
      const float expected =
          (image.rgb[i * 3 + channel] * 0.5f - processing.mean[channel]) / processing.std[channel];
      EXPECT_FLOAT_EQ(pixels[channel * 4 + i], expected);
    }
  }
}

TEST(ProcessImageTest, CropsAfterTheShorterSide) {
  const Image image = Pattern(40, 10);
  const ImageProcessing processing{
      .shortest_edge = 5, .crop_height = 4, .crop_width = 4, .rescale_factor = 1};
  std::vector<float> pixels(48);
  ASSERT_TRUE(ProcessImage(PngFile(image), processing, pixels.data()).ok());
  const Image expected =
      CenterCrop(Resize(image, 20, 5, Resample::kBicubic), 4, 4, CropRounding::kDown);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(pixels[i], expected.rgb[i * 3]);
}

TEST(CountPixelsTest, IsTheMostThatThereIsOnTheWay) {
  const auto count = [](int width, int height, const ImageProcessing& processing) {
    return *CountPixels(PngFile(Pattern(width, height)), processing);
  };
  const ImageProcessing square{.resize_height = 8, .resize_width = 10};
  EXPECT_EQ(count(20, 30, square), 20 * 30);
  EXPECT_EQ(count(2, 4, square), 10 * 8);
  EXPECT_EQ(count(2, 30, square), 10 * 30);  // a width of 10 comes first
  EXPECT_EQ(count(2, 4, {.shortest_edge = 8}), 8 * 16);
  EXPECT_EQ(count(2, 4, {}), 2 * 4);
}

TEST(ProcessImageTest, RefusesStripsThatWouldBecomeHuge) {
  const ImageProcessing edge{.shortest_edge = 4096, .crop_height = 8, .crop_width = 8};
  const ImageProcessing square{.resize_height = 8, .resize_width = 8192};
  std::vector<float> pixels(3 * 8 * 8192);
  EXPECT_THAT(ProcessImage(PngFile(Pattern(1, 20)), edge, pixels.data()),
              IsError(kInvalid, "got 1x20 pixels, which are 4096x81920"));
  EXPECT_THAT(ProcessImage(PngFile(Pattern(1, 8193)), square, pixels.data()),
              IsError(kInvalid, "got 1x8193 pixels, which are 8192x8193", "allowed are 67108864"));
}

}  // namespace
}  // namespace evaserve

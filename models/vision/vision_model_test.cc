#include "models/vision/vision_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/serial_worker_pool.h"
#include "models/testing/status_matchers.h"
#include "models/vision/testing/pattern.h"
#include "models/vision/testing/png_file.h"

namespace evaserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Le;

// The features of an image are its first pixel of each colour.
class FirstPixels final : public ImageNetwork {
 public:
  explicit FirstPixels(std::vector<int>& batches) : batches_(batches) {}

  int image_size() const override { return 2; }
  int feature_size() const override { return 3; }
  int num_tokens() const override { return 2000; }
  int64_t weight_bytes() const override { return 0; }

  absl::Status Run(const float* pixels, int batch, float* features) override {
    batches_.push_back(batch);
    for (int i = 0; i < batch * 3; ++i) features[i] = pixels[i * 4];
    return absl::OkStatus();
  }

 private:
  std::vector<int>& batches_;
};

class VisionModelTest : public ::testing::Test {
 protected:
  VisionModelTest() {
    const float weight[] = {1, 0, 0, 0, 10, 0};
    const WeightView view{weight, DType::kFloat32, 2, 3};
    VisionModelParts parts;
    parts.network = std::make_unique<FirstPixels>(batches_);
    parts.head = {.weight = PackedWeight::Pack({&view, 1}, DType::kFloat32), .bias = {0, 0.5f}};
    parts.labels = {"cat", "dog"};
    parts.processing = {.resize_height = 2, .resize_width = 2, .rescale_factor = 1};
    model_ = MakeVisionModel(std::move(parts), workers_);
  }

  static TensorModel::Inputs Pixels(const std::vector<float>& values) {
    TensorModel::Inputs inputs(2);
    inputs[0].shape = {static_cast<int64_t>(values.size()) / 12, 3, 2, 2};
    inputs[0].data = {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
    return inputs;
  }

  static TensorModel::Inputs Files(const std::string& raw, int64_t count) {
    TensorModel::Inputs inputs(2);
    inputs[1] = {{count}, raw};
    return inputs;
  }

  static std::vector<float> FloatsOf(const OutputTensor& tensor) {
    std::vector<float> values(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }

  std::vector<int> batches_;  // of the network
  SerialWorkerPool workers_;
  std::unique_ptr<TensorModel> model_;
};

std::string Element(const std::string& bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + bytes;
}

std::vector<float> Counting(int images) {
  std::vector<float> values(images * 12);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return values;
}

TEST_F(VisionModelTest, EachRequestGetsItsRows) {
  const std::vector<float> three = Counting(3), one(12, 7.f);
  const TensorModel::Inputs first = Pixels(three), second = Pixels(one);
  const TensorModel::Inputs* requests[] = {&first, &second};

  const auto results = model_->Run(requests);

  ASSERT_TRUE(results.ok()) << results.status();
  const OutputTensor& logits = (*results)[0][0];
  EXPECT_THAT(logits.shape, ElementsAre(3, 2));
  EXPECT_THAT(FloatsOf(logits), ElementsAre(0, 40.5, 12, 160.5, 24, 280.5));
  EXPECT_THAT((*results)[1][1].shape, ElementsAre(1, 3));
  EXPECT_THAT(FloatsOf((*results)[1][1]), ElementsAre(7, 7, 7));
}

TEST_F(VisionModelTest, PassesStaySmall) {
  const std::vector<float> many = Counting(10);
  const TensorModel::Inputs inputs = Pixels(many);
  const TensorModel::Inputs* requests[] = {&inputs};
  ASSERT_TRUE(model_->Run(requests).ok());
  EXPECT_THAT(batches_, Each(Le(3)));
}

TEST_F(VisionModelTest, DecodesImages) {
  const Image image = Pattern(2, 2);
  const std::string raw = Element(PngFile(image)) + Element(PngFile(image));
  const TensorModel::Inputs inputs = Files(raw, 2);
  const TensorModel::Inputs* requests[] = {&inputs};

  const auto results = model_->Run(requests);

  ASSERT_TRUE(results.ok()) << results.status();
  const std::vector<float> features = FloatsOf((*results)[0][1]);
  EXPECT_THAT(features, ElementsAre(image.rgb[0], image.rgb[1], image.rgb[2], image.rgb[0],
                                    image.rgb[1], image.rgb[2]));
}

TEST_F(VisionModelTest, NamesTheImageThatIsNone) {
  const std::string raw = Element(PngFile(Pattern(2, 2))) + Element("GIF");
  const TensorModel::Inputs inputs = Files(raw, 2);
  const TensorModel::Inputs* requests[] = {&inputs};
  EXPECT_THAT(model_->Run(requests).status(), IsError(kInvalid, "image: element 1: got 3 bytes"));
  EXPECT_THAT(model_->CountTokens(inputs).status(),
              IsError(kInvalid, "image: element 1: got 3 bytes"));
  EXPECT_THAT(batches_, ElementsAre());
}

// Some kilobytes become 192 MiB.
std::string LargePng() {
  std::string file = PngFile(Pattern(1, 1));
  constexpr size_t kWidth = 16;
  return file.replace(kWidth, 8, std::string("\0\0\x20\0\0\0\x20\0", 8));
}

TEST_F(VisionModelTest, ImagesOfARequestAreBoundedTogether) {
  const std::string one = Element(PngFile(Pattern(2, 2))), large = Element(LargePng());
  EXPECT_TRUE(model_->CountTokens(Files(large + large + large + large, 4)).ok());
  EXPECT_TRUE(model_->CountTokens(Files(one + one, 2)).ok());
  EXPECT_THAT(
      model_->CountTokens(Files(one + large + large + large + large, 5)).status(),
      IsError(kInvalid, "image: element 4: got 67108864 pixels, with those before it 268435460",
              "a request's images may have 268435456"));
}

TEST_F(VisionModelTest, TakesNoMoreFilesThanItHasRoomFor) {
  std::string raw;
  for (int i = 0; i < 257; ++i) raw += Element("");
  const TensorModel::Inputs inputs = Files(raw, 257);
  const TensorModel::Inputs* requests[] = {&inputs};
  EXPECT_THAT(model_->Run(requests).status(),
              IsError(kInvalid, "image: got 257 elements, allowed are 256"));
  EXPECT_THAT(model_->CountTokens(inputs).status(), IsError(kInvalid, "image: got 257 elements"));
}

TEST_F(VisionModelTest, TakesOneOfItsInputs) {
  const std::vector<float> pixels = Counting(1);
  TensorModel::Inputs both = Pixels(pixels);
  both[1].shape = {1};
  const TensorModel::Inputs neither(2);
  for (const TensorModel::Inputs* inputs :
       std::initializer_list<const TensorModel::Inputs*>{&both, &neither}) {
    const TensorModel::Inputs* requests[] = {inputs};
    EXPECT_THAT(model_->Run(requests).status(), IsError(kInvalid, "one of pixel_values and image"));
    EXPECT_THAT(model_->CountTokens(*inputs).status(), IsError(kInvalid, "one of pixel_values"));
  }
}

TEST_F(VisionModelTest, TellsWhatItTakes) {
  const TensorModelInfo& info = model_->info();
  EXPECT_TRUE(info.inputs[0].is_optional);
  EXPECT_THAT(info.inputs[0].shape, ElementsAre(-1, 3, 2, 2));
  EXPECT_THAT(info.outputs[0].labels, ElementsAre("cat", "dog"));
  EXPECT_EQ(info.parameters.at("image_processing").substr(0, 13), "resize to 2x2");
}

}  // namespace
}  // namespace evaserve

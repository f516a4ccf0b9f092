#include "server/rpc/classify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace evaserve {
namespace {

OutputTensor Logits(const std::vector<float>& values) {
  return {{1, static_cast<int64_t>(values.size())},
          std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float))};
}

TEST(FillClassesTest, GivesProbabilitiesOverAllClasses) {
  const TensorSpec spec{.name = "logits", .labels = {"cat", "dog", "mouse"}};
  v1::ClassifyResponse response;
  FillClasses(Logits({std::log(1.f), std::log(5.f), std::log(2.f)}), spec, 2, response);
  ASSERT_EQ(response.classes_size(), 2);
  EXPECT_EQ(response.classes(0).label(), "dog");
  EXPECT_EQ(response.classes(0).index(), 1u);
  EXPECT_NEAR(response.classes(0).probability(), 5. / 8, 1e-6);
  EXPECT_EQ(response.classes(1).label(), "mouse");
  EXPECT_NEAR(response.classes(1).probability(), 2. / 8, 1e-6);
}

TEST(FillClassesTest, LargeLogitsDoNotOverflow) {
  v1::ClassifyResponse response;
  FillClasses(Logits({1e30f, -1e30f}), {.name = "logits"}, 5, response);
  ASSERT_EQ(response.classes_size(), 2);
  EXPECT_EQ(response.classes(0).probability(), 1);
  EXPECT_EQ(response.classes(0).label(), "");
  EXPECT_EQ(response.classes(1).probability(), 0);
}

TEST(PrepareClassifyTest, NeedsAModelOfImages) {
  v1::ClassifyRequest request;
  request.set_image("image");
  v1::ClassifyResponse response;
  const absl::Status status = PrepareClassify({.name = "text"}, request, response).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(std::string(status.message()), "model \"text\" does not classify images");
}

}  // namespace
}  // namespace evaserve

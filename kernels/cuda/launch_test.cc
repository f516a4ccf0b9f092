#include "kernels/cuda/launch.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

const auto kDescribe = [](auto type, auto head_dim) {
  return std::string(Name(decltype(type)::value)) + " " + std::to_string(decltype(head_dim)::value);
};

TEST(LaunchTest, TypeAndHeadDimBecomeTemplateArguments) {
  for (const int head_dim : {32, 64, 96, 128}) {
    for (const DType type : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      const std::string expected = std::string(Name(type)) + " " + std::to_string(head_dim);
      EXPECT_EQ(DispatchShape(type, head_dim, kDescribe), expected);
      if (type == DType::kFloat32) continue;
      EXPECT_EQ(DispatchHalfShape(type, head_dim, kDescribe), expected);
    }
  }
}

TEST(LaunchTest, SaysWhatIsAllowed) {
  EXPECT_EQ(DispatchShape(DType::kBFloat16, 80, kDescribe),
            "head_dim is 80; allowed: 32, 64, 96, 128");
  EXPECT_EQ(DispatchHalfShape(DType::kFloat32, 64, kDescribe),
            "type is float32; allowed: bfloat16, float16");
}

}  // namespace
}  // namespace evaserve

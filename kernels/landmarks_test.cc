#include "kernels/landmarks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_layer.h"
#include "kernels/testing/eva_sequence.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

// Float32 against float64; a norm of a small mean enlarges its error.
constexpr double kTolerance = 2e-5;

class LandmarksTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!ForceCpuKernels(GetParam())) GTEST_SKIP() << "this machine has no " << GetParam();
  }
  ~LandmarksTest() override { ForceCpuKernels(usual_); }

  void CheckAgainstReference(const EvaLayerOptions& options, const RegionShape& shape) {
    SCOPED_TRACE(testing::Message()
                 << "head_dim " << options.head_dim << ", tokens " << shape.num_tokens()
                 << ", norm " << options.has_norm << ", map_q " << options.has_map_q);
    const Regions regions = MakeRegions(shape).value();
    const EvaLayer layer(options, 1);
    const std::vector<float> qkv = RandomVector(regions.num_tokens * 3 * layer.width(), 1.f, 7);
    const EvaLayerOutput want = layer.Run(regions, qkv, nullptr);
    const EvaLayerOutput got = layer.Run(regions, qkv, &workers_);
    EXPECT_LE(MaxError(got.k_bar, want.k_bar), kTolerance);
    EXPECT_LE(MaxError(got.beta, want.beta), kTolerance);
  }

  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

INSTANTIATE_TEST_SUITE_P(All, LandmarksTest, testing::Values("baseline", "avx2", "avx512bf16"));

TEST_P(LandmarksTest, AgreesWithTheReferenceOnEveryShape) {
  for (const int head_dim : {4, 12, 32, 40, 64, 68, 128}) {
    EvaLayerOptions options;
    options.num_heads = 2;
    options.head_dim = head_dim;
    CheckAgainstReference(options, {1, 61, 8, 8, true, false});
    CheckAgainstReference(options, {1, 300, 4, 75, false, false});
    CheckAgainstReference(options, {1, 5, 16, 4, false, false});
    CheckAgainstReference(options, {14, 14, 7, 49, false, true});
    CheckAgainstReference(options, {8, 12, 4, 5, true, true});
  }
}

TEST_P(LandmarksTest, AgreesWithTheReferenceInEveryForm) {
  for (const bool has_norm : {true, false}) {
    for (const bool has_map_q : {true, false}) {
      for (const float mu_scale : {0.5f, 1.f}) {
        CheckAgainstReference({3, 16, DType::kFloat32, has_map_q, has_norm, mu_scale},
                              {1, 61, 8, 8, true, false});
      }
    }
  }
}

TEST_P(LandmarksTest, AChunkOfPaddingHasTheMapOfZeroAndNoValue) {
  MapWeights map;
  map.weight = RandomVector(16 * 16, 1.f, 1);
  map.bias = RandomVector(16, 1.f, 2);
  const EvaLayer layer({1, 16, DType::kFloat32, true, /*has_norm=*/false, 0.5f}, map, map);
  const Regions regions = MakeRegions({1, 5, 16, 4, false, false}).value();
  const EvaLayerOutput got = layer.Run(regions, RandomVector(5 * 48, 1.f, 3), &workers_);
  for (int d = 0; d < 16; ++d) {
    EXPECT_FLOAT_EQ(got.k_bar[3 * 16 + d], map.bias[d]) << d;
    EXPECT_EQ(got.beta[3 * 16 + d], 0.f) << d;
  }
}

TEST(LandmarksValidateTest, NamesFieldsOutOfRange) {
  const Regions regions = MakeRegions({1, 8, 4, 4, false, false}).value();
  const RegionItem item = {&regions, 0, 0};
  const std::vector<float> numbers(64);
  const WeightView view = {numbers.data(), DType::kFloat32, 8, 8};
  const PackedWeight weight = PackedWeight::Pack({&view, 1}, DType::kFloat32);
  const PackedWeight rounded = PackedWeight::Pack({&view, 1}, DType::kBFloat16);
  LandmarksParams p;
  p.items = {&item, 1};
  p.num_heads = 2;
  p.head_dim = 8;
  p.stride = 16;
  p.map_q = p.map_k = {&weight, numbers.data(), nullptr, nullptr};
  EXPECT_TRUE(Validate(p).ok());

  const auto error = [&](auto change) {
    LandmarksParams wrong = p;
    change(wrong);
    return std::string(Validate(wrong).message());
  };
  EXPECT_EQ(error([](auto& w) { w.stride = 15; }), "stride is 15, must be at least 16");
  EXPECT_EQ(error([](auto& w) { w.map_k.weight = nullptr; }), "map_k has no weight");
  EXPECT_EQ(error([](auto& w) { w.head_dim = 4; }),
            "map_k is float32 8 x 8, must be float32 4 x 4");
  EXPECT_EQ(error([&](auto& w) { w.map_q.weight = &rounded; }),
            "map_q is bfloat16 8 x 8, must be float32 8 x 8");
  EXPECT_THAT(error([&](auto& w) { w.map_q.norm_bias = numbers.data(); }),
              HasSubstr("one part of a norm"));
  EXPECT_TRUE(error([](auto& w) { w.map_q.weight = nullptr; }).empty());
}

}  // namespace
}  // namespace evaserve

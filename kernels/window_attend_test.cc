#include "kernels/window_attend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_layer.h"
#include "kernels/testing/eva_sequence.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

// Float32 sums of some hundred products of unit size, against float64.
constexpr double kFloat32Tolerance = 1e-5;
// Queries, keys, values, landmarks and weights are rounded to bfloat16, 2^-9 relative each.
constexpr double kBFloat16Tolerance = 5e-2;

Regions Sequence(int tokens, int window, int num_landmarks, bool overlap) {
  return MakeRegions({1, tokens, window, num_landmarks, overlap, false}).value();
}

Regions Map(int height, int width, int window, int num_landmarks, bool overlap) {
  return MakeRegions({height, width, window, num_landmarks, overlap, true}).value();
}

// Around whole vectors and tiles: 1 to 169 keys, 1 to 64 landmarks, padding, one token.
std::vector<Regions> Grid() {
  return {Sequence(1, 1, 1, false),   Sequence(1, 8, 2, false),  Sequence(5, 16, 4, false),
          Sequence(61, 8, 8, true),   Sequence(56, 8, 16, true), Sequence(130, 32, 8, true),
          Sequence(96, 24, 48, true), Map(14, 14, 7, 49, false), Map(14, 7, 7, 32, true),
          Map(12, 8, 4, 6, false),    Map(8, 8, 4, 64, true)};
}

struct WindowCase {
  std::string isa;
  DType dtype = DType::kFloat32;
};

void PrintTo(const WindowCase& c, std::ostream* os) { *os << c.isa << " " << Name(c.dtype); }

class WindowAttendTest : public testing::TestWithParam<WindowCase> {
 protected:
  WindowAttendTest() { ForceCpuKernels(GetParam().isa); }
  ~WindowAttendTest() override { ForceCpuKernels(usual_); }

  EvaLayerOptions Options(int num_heads, int head_dim) const {
    return {num_heads, head_dim, GetParam().dtype};
  }
  double Tolerance() const {
    return GetParam().dtype == DType::kFloat32 ? kFloat32Tolerance : kBFloat16Tolerance;
  }
  static size_t BiasSize(int num_heads, const Regions& regions) {
    return size_t(num_heads) * regions.window_queries * regions.window_keys;
  }
  void CheckAgainstReference(const EvaLayer& layer, const Regions& regions, float spread) {
    const std::vector<float> qkv = RandomVector(regions.num_tokens * 3 * layer.width(), spread, 7);
    const EvaLayerOutput want = layer.Run(regions, qkv, nullptr);
    const EvaLayerOutput got = layer.Run(regions, qkv, &workers_);
    const double size = std::max(1.f, spread);
    EXPECT_LE(MaxError(got.out, want.out), size * Tolerance());
    EXPECT_LE(MaxError(got.lse, want.lse), size * size * Tolerance());
  }

  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

std::vector<WindowCase> WindowCases() {
  std::vector<WindowCase> cases;
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (FindCpuKernels(isa) == nullptr) continue;
    cases.push_back({isa, DType::kFloat32});
    cases.push_back({isa, DType::kBFloat16});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, WindowAttendTest, testing::ValuesIn(WindowCases()),
                         [](const auto& info) {
                           return info.param.isa + "_" + std::string(Name(info.param.dtype));
                         });

TEST_P(WindowAttendTest, AgreesWithTheReferenceOnEveryShape) {
  for (const Regions& regions : Grid()) {
    for (const int head_dim : {4, 12, 32, 40, 64, 128}) {
      SCOPED_TRACE(testing::Message() << regions.window_keys << " keys, " << regions.num_chunks
                                      << " landmarks, head_dim " << head_dim);
      CheckAgainstReference(EvaLayer(Options(2, head_dim), 1), regions, 1.f);
    }
  }
}

TEST_P(WindowAttendTest, AddsTheBiasOfEachHeadToItsKeys) {
  for (const Regions& regions : Grid()) {
    SCOPED_TRACE(testing::Message() << regions.window_keys << " keys");
    EvaLayer layer(Options(3, 16), 1);
    layer.set_bias(RandomVector(BiasSize(3, regions), 2.f, 9));
    CheckAgainstReference(layer, regions, 1.f);
  }
}

// Logits of some hundreds, where the weights of all but a few columns vanish.
TEST_P(WindowAttendTest, StandsLargeLogits) {
  const Regions regions = Sequence(61, 8, 8, true);
  EvaLayer layer(Options(2, 32), 1);
  layer.set_bias(RandomVector(BiasSize(2, regions), 300.f, 9));
  const std::vector<float> qkv = RandomVector(61 * 3 * 64, 8.f, 7);
  const EvaLayerOutput got = layer.Run(regions, qkv, &workers_);
  for (const float x : got.out) ASSERT_LE(std::abs(x), 50.f);
  if (GetParam().dtype == DType::kFloat32) {
    EXPECT_LE(MaxError(got.out, layer.Run(regions, qkv, nullptr).out), 1e-3);
  }
}

TEST(WindowAttendValidateTest, NamesFieldsOutOfRange) {
  const Regions regions = Sequence(8, 4, 4, false), others = Sequence(8, 2, 4, false);
  const RegionItem items[] = {{&regions, 0, 0}, {&others, 8, 4}};
  const float bias = 0.f;
  WindowAttendParams p;
  p.items = {items, 1};
  p.num_heads = 2;
  p.head_dim = 8;
  p.stride = p.out_stride = 16;
  EXPECT_TRUE(Validate(p).ok());

  const auto error = [&](auto change) {
    WindowAttendParams wrong = p;
    change(wrong);
    return std::string(Validate(wrong).message());
  };
  EXPECT_EQ(error([](auto& w) { w.num_heads = 0; }), "num_heads is 0, must be at least 1");
  EXPECT_EQ(error([](auto& w) { w.head_dim = 6; }),
            "head_dim is 6, must be a multiple of 4 in [4, 128]");
  EXPECT_THAT(error([](auto& w) { w.head_dim = 132; }), HasSubstr("head_dim is 132"));
  EXPECT_THAT(error([](auto& w) { w.dtype = DType::kFloat16; }), HasSubstr("dtype is float16"));
  EXPECT_EQ(error([](auto& w) { w.out_stride = 15; }),
            "stride and out_stride are 16 and 15, must be at least 16");
  EXPECT_EQ(error([&](auto& w) {
              w.items = items;
              w.bias = &bias;
            }),
            "one bias for windows of 4 and of 2 queries");
  const RegionItem no_regions;
  EXPECT_THAT(error([&](auto& w) { w.items = {&no_regions, 1}; }), HasSubstr("items[0]"));
}

}  // namespace
}  // namespace evaserve

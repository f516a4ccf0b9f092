// What must hold for landmarks and window_attend together on any input, without stored answers.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <numeric>
#include <ostream>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_layer.h"
#include "kernels/testing/eva_sequence.h"
#include "kernels/testing/threaded_worker_pool.h"

namespace evaserve {
namespace {

struct LawCase {
  std::string isa;
  DType dtype = DType::kFloat32;
};

void PrintTo(const LawCase& c, std::ostream* os) { *os << c.isa << " " << Name(c.dtype); }

Regions Sequence(int tokens, int window, int num_landmarks, bool overlap = false) {
  return MakeRegions({1, tokens, window, num_landmarks, overlap, false}).value();
}

class WindowLawsTest : public testing::TestWithParam<LawCase> {
 protected:
  static constexpr int kHeads = 2;
  static constexpr int kHeadDim = 20;
  static constexpr int kWidth = kHeads * kHeadDim;

  WindowLawsTest() { ForceCpuKernels(GetParam().isa); }
  ~WindowLawsTest() override { ForceCpuKernels(usual_); }

  bool is_float32() const { return GetParam().dtype == DType::kFloat32; }
  // Two orders of summation in float32; roundings relative to another maximum in bfloat16.
  double Tolerance() const { return is_float32() ? 1e-5 : 5e-2; }
  EvaLayerOptions Options(bool has_norm = true) const {
    return {kHeads, kHeadDim, GetParam().dtype, true, has_norm, 0.5f};
  }
  EvaLayer RandomLayer() const { return EvaLayer(Options(), 11); }
  // kbar is the mean itself.
  EvaLayer IdentityLayer() const {
    MapWeights map;
    map.weight.assign(kHeadDim * kHeadDim, 0.f);
    map.bias.assign(kHeadDim, 0.f);
    for (int d = 0; d < kHeadDim; ++d) map.weight[d * (kHeadDim + 1)] = 1.f;
    return EvaLayer(Options(/*has_norm=*/false), map, map);
  }
  static std::vector<float> Tokens(int count, uint32_t seed) {
    return RandomVector(size_t(count) * 3 * kWidth, 1.f, seed);
  }
  // Row i of the result is row order[i].
  static std::vector<float> Reorder(const std::vector<float>& rows, const std::vector<int>& order) {
    const int64_t width = static_cast<int64_t>(rows.size() / order.size());
    std::vector<float> result;
    for (const int row : order) {
      result.insert(result.end(), rows.begin() + row * width, rows.begin() + (row + 1) * width);
    }
    return result;
  }
  static void SetValues(std::vector<float>& qkv, float (*value)(int d)) {
    for (size_t i = 0; i < qkv.size(); ++i) {
      const int d = static_cast<int>(i % (3 * kWidth)) - 2 * kWidth;
      if (d >= 0) qkv[i] = value(d);
    }
  }

  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

std::vector<LawCase> LawCases() {
  std::vector<LawCase> cases;
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (FindCpuKernels(isa) == nullptr) continue;
    cases.push_back({isa, DType::kFloat32});
    cases.push_back({isa, DType::kBFloat16});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, WindowLawsTest, testing::ValuesIn(LawCases()), [](const auto& info) {
  return info.param.isa + "_" + std::string(Name(info.param.dtype));
});

// float64 softmax attention of every token over every token.
std::vector<float> SoftmaxAttention(const std::vector<float>& qkv, int heads, int head_dim) {
  const int width = heads * head_dim, count = static_cast<int>(qkv.size()) / (3 * width);
  std::vector<float> out(size_t(count) * width);
  for (int t = 0; t < count; ++t) {
    for (int h = 0; h < heads; ++h) {
      const float* q = &qkv[t * 3 * width + h * head_dim];
      std::vector<double> sum(head_dim);
      double total = 0;
      for (int j = 0; j < count; ++j) {
        const float* k = &qkv[(j * 3 + 1) * width + h * head_dim];
        const double logit = std::inner_product(q, q + head_dim, k, 0.) / std::sqrt(head_dim);
        total += std::exp(logit);
        for (int d = 0; d < head_dim; ++d) sum[d] += std::exp(logit) * k[width + d];
      }
      for (int d = 0; d < head_dim; ++d) {
        out[t * width + h * head_dim + d] = static_cast<float>(sum[d] / total);
      }
    }
  }
  return out;
}

// Each token is then seen twice, which changes nothing.
TEST_P(WindowLawsTest, OneWindowAndChunksOfOneTokenEqualSoftmaxAttention) {
  const std::vector<float> qkv = Tokens(30, 1);
  const auto out = IdentityLayer().Run(Sequence(30, 30, 30), qkv, &workers_).out;
  EXPECT_LE(MaxError(out, SoftmaxAttention(qkv, kHeads, kHeadDim)), Tolerance());
}

TEST_P(WindowLawsTest, OneWindowOrChunksOfOneTokenAloneDoNot) {
  const std::vector<float> qkv = Tokens(32, 1);
  const std::vector<float> exact = SoftmaxAttention(qkv, kHeads, kHeadDim);
  const EvaLayer layer = IdentityLayer();
  EXPECT_GT(MaxError(layer.Run(Sequence(32, 32, 4), qkv, &workers_).out, exact), 0.05);
  EXPECT_GT(MaxError(layer.Run(Sequence(32, 8, 32), qkv, &workers_).out, exact), 0.05);
}

TEST_P(WindowLawsTest, AConstantValueComesOutUnlessThereIsPadding) {
  std::vector<float> qkv = Tokens(32, 2);
  SetValues(qkv, [](int d) { return static_cast<float>(d % 5) - 2.f; });
  const EvaLayer layer = RandomLayer();
  std::vector<float> want;
  for (int i = 0; i < 32 * kWidth; ++i) want.push_back(static_cast<float>(i % kWidth % 5) - 2.f);
  EXPECT_LE(MaxError(layer.Run(Sequence(32, 8, 4, true), qkv, &workers_).out, want),
            is_float32() ? 2e-6 : 1e-2);

  qkv.resize(3 * kWidth * 9);
  want.resize(9 * kWidth);
  // Three of four chunks are padding alone.
  EXPECT_GT(MaxError(layer.Run(Sequence(9, 32, 4), qkv, &workers_).out, want), 0.05);
}

TEST_P(WindowLawsTest, OutputsLieInTheBoxOfTheValues) {
  const std::vector<float> qkv = Tokens(64, 3);
  const auto out = RandomLayer().Run(Sequence(64, 16, 8, true), qkv, &workers_).out;
  const double slack = is_float32() ? 1e-6 : 2e-2;
  for (int d = 0; d < kWidth; ++d) {
    float low = INFINITY, high = -INFINITY;
    for (int t = 0; t < 64; ++t) {
      low = std::min(low, qkv[(t * 3 + 2) * kWidth + d]);
      high = std::max(high, qkv[(t * 3 + 2) * kWidth + d]);
    }
    for (int t = 0; t < 64; ++t) {
      ASSERT_GE(out[t * kWidth + d], low - slack) << t;
      ASSERT_LE(out[t * kWidth + d], high + slack) << t;
    }
  }
}

TEST_P(WindowLawsTest, OrderInsideAWindowAndChunkPermutesTheResults) {
  const std::vector<float> qkv = Tokens(32, 4);
  std::vector<int> order(32);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[9], order[14]);
  std::swap(order[25], order[31]);
  const Regions regions = Sequence(32, 16, 4);
  const auto out = RandomLayer().Run(regions, qkv, &workers_).out;
  const auto permuted = RandomLayer().Run(regions, Reorder(qkv, order), &workers_).out;
  EXPECT_LE(MaxError(permuted, Reorder(out, order)), Tolerance());
}

TEST_P(WindowLawsTest, OrderInsideABlockOfAMapPermutesTheResults) {
  const std::vector<float> qkv = Tokens(64, 4);
  std::vector<int> order(64);
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[2], order[11]);  // (0, 2) and (1, 3): one chunk of side 2
  const Regions regions = MakeRegions({8, 8, 4, 16, false, true}).value();
  const auto out = RandomLayer().Run(regions, qkv, &workers_).out;
  const auto permuted = RandomLayer().Run(regions, Reorder(qkv, order), &workers_).out;
  EXPECT_LE(MaxError(permuted, Reorder(out, order)), Tolerance());
}

TEST_P(WindowLawsTest, ACyclicShiftByWholeWindowsAndChunksShiftsTheResults) {
  const std::vector<float> qkv = Tokens(48, 5);
  std::vector<int> order(48);
  for (int i = 0; i < 48; ++i) order[i] = (i + 24) % 48;  // windows of 8, chunks of 12
  EvaLayer layer = RandomLayer();
  layer.set_bias(RandomVector(kHeads * 8 * 8, 1.f, 6));
  const Regions regions = Sequence(48, 8, 4);
  const auto out = layer.Run(regions, qkv, &workers_).out;
  const auto shifted = layer.Run(regions, Reorder(qkv, order), &workers_).out;
  EXPECT_LE(MaxError(shifted, Reorder(out, order)), Tolerance());
}

TEST_P(WindowLawsTest, TheSameInputGivesTheSameBits) {
  const std::vector<float> qkv = Tokens(61, 7);
  const Regions regions = Sequence(61, 8, 8, true);
  EXPECT_EQ(RandomLayer().Run(regions, qkv, &workers_).out,
            RandomLayer().Run(regions, qkv, &workers_).out);
}

TEST_P(WindowLawsTest, ABatchOfAnyLengthsEqualsItsItemsAloneToTheBit) {
  const Regions regions[] = {Sequence(61, 8, 8, true), Sequence(5, 8, 8, true),
                             Sequence(12000, 8, 80, true), Sequence(300, 8, 8, true)};
  const EvaLayer layer = RandomLayer();
  ThreadedWorkerPool threads(3);
  std::vector<RegionItem> items;
  std::vector<float> qkv, out, lse, beta;
  int64_t tokens = 0, landmarks = 0;
  for (const Regions& r : regions) {
    const std::vector<float> rows = Tokens(r.num_tokens, 20 + r.num_tokens);
    const EvaLayerOutput alone = layer.Run(r, rows, &workers_);
    items.push_back({&r, tokens, landmarks});
    tokens += r.num_tokens;
    landmarks += r.num_chunks;
    qkv.insert(qkv.end(), rows.begin(), rows.end());
    out.insert(out.end(), alone.out.begin(), alone.out.end());
    lse.insert(lse.end(), alone.lse.begin(), alone.lse.end());
    beta.insert(beta.end(), alone.beta.begin(), alone.beta.end());
  }
  const EvaLayerOutput together = layer.Run(items, qkv, &threads);
  EXPECT_EQ(threads.num_runs(), 2);
  EXPECT_EQ(together.out, out);
  EXPECT_EQ(together.lse, lse);
  EXPECT_EQ(together.beta, beta);
}

// Seconds of the processor for a batch of so many sequences of one token.
double TimeOfLoneTokens(int count) {
  const EvaLayer layer({.num_heads = 1, .head_dim = 4}, 11);
  const Regions regions = Sequence(1, 1, 1);
  std::vector<RegionItem> items;
  for (int i = 0; i < count; ++i) items.push_back({&regions, i, i});
  const std::vector<float> qkv(size_t(count) * 3 * layer.width(), 1.f);
  SerialWorkerPool workers;
  double best = INFINITY;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t begin = std::clock();
    layer.Run(items, qkv, &workers);
    best = std::min(best, double(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return best;
}

// Walking to each piece of work from the first one makes it 15 times the time.
TEST(WindowTimeTest, GrowsWithTheItemsOfABatchNotWithTheirSquare) {
  EXPECT_LT(TimeOfLoneTokens(40000), 8 * TimeOfLoneTokens(10000));
}

TEST_P(WindowLawsTest, WorkersDoNotChangeABit) {
  const std::vector<float> qkv = Tokens(56 * 56, 8);
  const Regions regions = MakeRegions({56, 56, 7, 196, true, true}).value();
  ThreadedWorkerPool threads(4);
  const EvaLayerOutput alone = RandomLayer().Run(regions, qkv, &workers_);
  const EvaLayerOutput shared = RandomLayer().Run(regions, qkv, &threads);
  EXPECT_EQ(threads.num_runs(), 2);
  EXPECT_EQ(shared.out, alone.out);
  EXPECT_EQ(shared.k_bar, alone.k_bar);
  EXPECT_EQ(shared.beta, alone.beta);
}

}  // namespace
}  // namespace evaserve

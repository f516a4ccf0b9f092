#include "kernels/causal_eva.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/causal_eva_layer.h"
#include "kernels/testing/eva_sequence.h"
#include "kernels/testing/threaded_worker_pool.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

struct CausalCase {
  std::string isa;
  DType dtype = DType::kFloat32;
};

void PrintTo(const CausalCase& c, std::ostream* os) { *os << c.isa << " " << Name(c.dtype); }

class CausalEvaTest : public testing::TestWithParam<CausalCase> {
 protected:
  CausalEvaTest() { ForceCpuKernels(GetParam().isa); }
  ~CausalEvaTest() override { ForceCpuKernels(usual_); }

  bool is_float32() const { return GetParam().dtype == DType::kFloat32; }
  double Tolerance() const { return is_float32() ? 2e-5 : 5e-2; }
  CausalEvaLayer Layer(const CausalEvaShape& shape) const {
    CausalEvaLayer layer({shape, GetParam().dtype}, 3);
    layer.set_bias(RandomVector(size_t(shape.window) * shape.num_keys(), 1.f, 5));
    return layer;
  }

  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

std::vector<CausalCase> CausalCases() {
  std::vector<CausalCase> cases;
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (FindCpuKernels(isa) == nullptr) continue;
    cases.push_back({isa, DType::kFloat32});
    cases.push_back({isa, DType::kBFloat16});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, CausalEvaTest, testing::ValuesIn(CausalCases()),
                         [](const auto& info) {
                           return info.param.isa + "_" + std::string(Name(info.param.dtype));
                         });

TEST_P(CausalEvaTest, AgreesWithTheReferenceOnEveryShape) {
  for (const bool overlap : {false, true}) {
    for (const auto& [window, chunk] : {std::pair{1, 1}, {8, 1}, {8, 8}, {16, 4}, {21, 7}}) {
      for (const int head_dim : {4, 20, 64, 128}) {
        for (const int tokens : {1, 7, 16, 50}) {
          SCOPED_TRACE(testing::Message()
                       << "window " << window << " chunk " << chunk << " overlap " << overlap
                       << " head_dim " << head_dim << " tokens " << tokens);
          const CausalEvaLayer layer = Layer({2, head_dim, window, chunk, overlap});
          const std::vector<float> qkv = RandomVector(tokens * 3 * layer.width(), 1.f, 7);
          const CausalEvaOutput want = layer.RunReference(qkv);
          const CausalEvaOutput got = layer.Run(qkv, {tokens}, workers_);
          ASSERT_LE(MaxError(got.out, want.out), Tolerance());
          ASSERT_LE(MaxError(got.lse, want.lse), Tolerance());
        }
      }
    }
  }
}

TEST_P(CausalEvaTest, AnyCutIntoCallsGivesTheSameBits) {
  for (const bool overlap : {false, true}) {
    const CausalEvaLayer layer = Layer({2, 20, 16, 4, overlap});
    const std::vector<float> qkv = RandomVector(90 * 3 * layer.width(), 1.f, 7);
    const CausalEvaOutput whole = layer.Run(qkv, {90}, workers_);
    for (const std::vector<int>& cuts : {std::vector<int>(90, 1),
                                         {15, 1, 1, 16, 57},
                                         {3, 2, 7, 40, 38},
                                         {16, 16, 16, 16, 16, 10}}) {
      const CausalEvaOutput cut = layer.Run(qkv, cuts, workers_);
      EXPECT_EQ(cut.out, whole.out);
      EXPECT_EQ(cut.lse, whole.lse);
      EXPECT_EQ(cut.k_bar, whole.k_bar);
      EXPECT_EQ(cut.beta, whole.beta);
    }
  }
}

TEST_P(CausalEvaTest, LaterTokensDoNotChangeEarlierOnesABit) {
  const CausalEvaLayer layer = Layer({2, 20, 16, 4, true});
  std::vector<float> qkv = RandomVector(60 * 3 * layer.width(), 1.f, 7);
  const CausalEvaOutput before = layer.Run(qkv, {60}, workers_);
  for (size_t i = 41 * 3 * layer.width(); i < qkv.size(); ++i) qkv[i] = -qkv[i];
  const CausalEvaOutput after = layer.Run(qkv, {60}, workers_);
  qkv.resize(41 * 3 * layer.width());
  const CausalEvaOutput prefix = layer.Run(qkv, {41}, workers_);

  const size_t size = prefix.out.size();
  EXPECT_TRUE(std::equal(prefix.out.begin(), prefix.out.end(), before.out.begin()));
  EXPECT_TRUE(std::equal(prefix.out.begin(), prefix.out.end(), after.out.begin()));
  EXPECT_FALSE(std::equal(before.out.begin() + size, before.out.end(), after.out.begin() + size));
}

// float64 softmax attention over all earlier tokens.
std::vector<float> SoftmaxAttention(const std::vector<float>& qkv, int width) {
  const int count = static_cast<int>(qkv.size()) / (3 * width);
  std::vector<float> out;
  for (int t = 0; t < count; ++t) {
    std::vector<double> sum(width);
    double total = 0;
    for (int j = 0; j <= t; ++j) {
      double logit = 0;
      for (int d = 0; d < width; ++d) {
        logit += double{qkv[t * 3 * width + d]} * qkv[(j * 3 + 1) * width + d];
      }
      const double weight = std::exp(logit / std::sqrt(width));
      total += weight;
      for (int d = 0; d < width; ++d) sum[d] += weight * qkv[(j * 3 + 2) * width + d];
    }
    for (int d = 0; d < width; ++d) out.push_back(static_cast<float>(sum[d] / total));
  }
  return out;
}

TEST_P(CausalEvaTest, TheFirstChunkEqualsSoftmaxAttentionAndTheNextDoesNot) {
  const CausalEvaLayer layer({{1, 32, 16, 8, false}, GetParam().dtype}, 3);
  const std::vector<float> qkv = RandomVector(16 * 3 * 32, 1.f, 7);
  const CausalEvaOutput got = layer.Run(qkv, {16}, workers_);
  const std::vector<float> exact = SoftmaxAttention(qkv, 32);
  const std::span<const float> out(got.out), want(exact);
  EXPECT_LE(MaxError(out.first(8 * 32), want.first(8 * 32)), Tolerance());
  EXPECT_GT(MaxError(out.subspan(8 * 32), want.subspan(8 * 32)), 0.05);
}

TEST_P(CausalEvaTest, OutputsLieInTheBoxOfTheValuesSoFar) {
  const CausalEvaLayer layer = Layer({2, 20, 16, 4, true});
  const int width = layer.width();
  const std::vector<float> qkv = RandomVector(70 * 3 * width, 1.f, 7);
  const CausalEvaOutput got = layer.Run(qkv, {70}, workers_);
  const double slack = is_float32() ? 1e-6 : 2e-2;
  for (int d = 0; d < width; ++d) {
    float low = INFINITY, high = -INFINITY;
    for (int t = 0; t < 70; ++t) {
      low = std::min(low, qkv[(t * 3 + 2) * width + d]);
      high = std::max(high, qkv[(t * 3 + 2) * width + d]);
      ASSERT_GE(got.out[t * width + d], low - slack) << t;
      ASSERT_LE(got.out[t * width + d], high + slack) << t;
    }
  }
}

// Sequences at different places in one call, some with one token and some with many.
TEST_P(CausalEvaTest, ABatchEqualsItsSequencesAloneToTheBit) {
  const CausalEvaLayer layer = Layer({2, 20, 16, 4, true});
  const std::vector<int> history = {0, 15, 40, 16, 3};
  const std::vector<int> counts = {500, 1, 300, 1, 2};
  ThreadedWorkerPool threads(3);
  std::vector<CausalEvaMemory> states;
  std::vector<float> batch, want;
  for (size_t i = 0; i < history.size(); ++i) {
    const int total = history[i] + counts[i];
    const std::vector<float> qkv =
        RandomVector(total * 3 * layer.width(), 1.f, 30 + static_cast<uint32_t>(i));
    const CausalEvaOutput alone = layer.Run(qkv, {total}, workers_);
    want.insert(want.end(), alone.out.end() - counts[i] * layer.width(), alone.out.end());
    states.push_back(layer.MakeState(total));
    const auto cut = qkv.begin() + history[i] * 3 * layer.width();
    layer.Step({&states[i], 1}, {&history[i], 1}, {qkv.begin(), cut}, workers_);
    batch.insert(batch.end(), cut, qkv.end());
  }
  EXPECT_EQ(layer.Step(states, counts, batch, threads).out, want);
  EXPECT_EQ(threads.num_runs(), 1);
}

TEST(CausalEvaValidateTest, NamesFieldsOutOfRange) {
  EXPECT_EQ(Validate(CausalEvaShape{2, 6, 8, 4, false}).message(),
            "head_dim is 6, must be a multiple of 4 in [4, 128]");
  EXPECT_EQ(Validate(CausalEvaShape{2, 8, 10, 4, false}).message(),
            "window is 10, must be a positive multiple of chunk, 4");
  EXPECT_EQ(Validate(CausalEvaShape{2, 8, 8, 0, false}).message(),
            "chunk is 0, must be at least 1");

  const CausalEvaLayer layer({{2, 8, 8, 4, false}, DType::kFloat32}, 3);
  CausalEvaSequence sequence;
  sequence.position = 6;
  sequence.num_tokens = 2;
  CausalEvaParams p = layer.Params();
  p.stride = p.out_stride = 16;
  p.sequences = {&sequence, 1};
  EXPECT_EQ(Validate(p).message(), "sequences[0].max_chunks is 0, must be at least 2");
  sequence.state.max_chunks = 2;
  EXPECT_TRUE(Validate(p).ok());
  EXPECT_THAT(std::string(CausalEvaReference(p).message()), HasSubstr("position is 6"));
  p.stride = 15;
  EXPECT_EQ(Validate(p).message(), "stride is 15, must be at least 16");
}

}  // namespace
}  // namespace evaserve

// What must hold for summarize and attend together on any input, without stored answers.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <thread>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"
#include "kernels/testing/threaded_worker_pool.h"

namespace evaserve {
namespace {

constexpr double kFloat32Tolerance = 1e-5;  // two float32 orders of summation

struct LawCase {
  std::string isa;
  DType dtype = DType::kFloat32;
};

void PrintTo(const LawCase& c, std::ostream* os) { *os << c.isa << " " << Name(c.dtype); }

// Every law for every type and instruction set of this machine.
class EvaLawsTest : public testing::TestWithParam<LawCase> {
 protected:
  EvaLawsTest() { ForceCpuKernels(GetParam().isa); }
  ~EvaLawsTest() override { ForceCpuKernels(usual_); }

  EvaShape Shape(int window, int chunk) const {
    return {2, 40, window, chunk, GetParam().dtype, 0.16f};
  }
  EvaKernels Kernels(const EvaShape& shape) {
    return EvaKernels::Cpu(shape, RandomHeadVectors(shape, 11), workers_);
  }
  // Bfloat16 summaries of one token are that token, so only the order of sums differs; but the
  // weights are rounded relative to another maximum.
  double Tolerance() const {
    return GetParam().dtype == DType::kFloat32 ? kFloat32Tolerance : 2e-2;
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

INSTANTIATE_TEST_SUITE_P(All, EvaLawsTest, testing::ValuesIn(LawCases()), [](const auto& info) {
  return info.param.isa + "_" + std::string(Name(info.param.dtype));
});

TEST_P(EvaLawsTest, ChunksOfOneTokenEqualFullAttention) {
  const EvaShape eva = Shape(/*window=*/32, /*chunk=*/1), full = Shape(/*window=*/512, 1);
  const Tokens tokens = RandomTokens(eva, 300, 1);
  const EvaOutput a = RunAlone(Kernels(eva), eva, tokens, 32);
  const EvaOutput b = RunAlone(Kernels(full), full, tokens, 512);
  EXPECT_LE(MaxError(a.out, b.out), Tolerance());
  EXPECT_LE(MaxError(a.lse, b.lse), Tolerance());
}

// float64 softmax attention without pages.
std::vector<float> SoftmaxAttention(const EvaShape& shape, const Tokens& tokens) {
  const int width = shape.width();
  std::vector<float> out(tokens.q.size());
  for (int t = 0; t < tokens.count(shape); ++t) {
    for (int h = 0; h < shape.num_heads; ++h) {
      const int64_t row = int64_t{t} * width + h * shape.head_dim;
      std::vector<double> sum(shape.head_dim);
      double total = 0;
      for (int j = 0; j <= t; ++j) {
        const int64_t other = int64_t{j} * width + h * shape.head_dim;
        double logit = 0;
        for (int d = 0; d < shape.head_dim; ++d) {
          logit += double{tokens.q[row + d]} * tokens.k[other + d];
        }
        const double weight = std::exp(logit * shape.scale);
        total += weight;
        for (int d = 0; d < shape.head_dim; ++d) sum[d] += weight * tokens.v[other + d];
      }
      for (int d = 0; d < shape.head_dim; ++d) out[row + d] = static_cast<float>(sum[d] / total);
    }
  }
  return out;
}

TEST_P(EvaLawsTest, AWindowThatCoversTheSequenceEqualsSoftmaxAttention) {
  const EvaShape shape = Shape(/*window=*/320, /*chunk=*/8);
  const Tokens tokens = RandomTokens(shape, 300, 2);
  const EvaOutput eva = RunAlone(Kernels(shape), shape, tokens, 320);
  // Here keys and values themselves are rounded to the pages' type.
  const double tolerance = GetParam().dtype == DType::kFloat32 ? kFloat32Tolerance : 5e-2;
  EXPECT_LE(MaxError(eva.out, SoftmaxAttention(shape, tokens)), tolerance);
}

TEST_P(EvaLawsTest, PrefillInAnyCutEqualsTokenByTokenToTheBit) {
  const EvaShape shape = Shape(/*window=*/96, /*chunk=*/6);
  const Tokens tokens = RandomTokens(shape, 333, 3);
  const EvaOutput whole = RunAlone(Kernels(shape), shape, tokens, shape.window);
  for (const int cut : {1, 2, 5, 6, 7, 13, 64, 95}) {
    SCOPED_TRACE(cut);
    const EvaOutput cuts = RunAlone(Kernels(shape), shape, tokens, cut);
    EXPECT_EQ(cuts.out, whole.out);
    EXPECT_EQ(cuts.lse, whole.lse);
  }
}

TEST_P(EvaLawsTest, ManyBlocksOfSlotsEqualTokenByTokenToTheBit) {
  const EvaShape shape = Shape(/*window=*/700, /*chunk=*/2);
  const Tokens tokens = RandomTokens(shape, 1500, 3);
  const EvaOutput whole = RunAlone(Kernels(shape), shape, tokens, shape.window);
  EXPECT_EQ(RunAlone(Kernels(shape), shape, tokens, 1).out, whole.out);
  EXPECT_EQ(RunAlone(Kernels(shape), shape, tokens, 101).out, whole.out);
}

TEST_P(EvaLawsTest, PageOrderDoesNotMatterToTheBit) {
  const EvaShape shape = Shape(/*window=*/96, /*chunk=*/6);
  const Tokens tokens = RandomTokens(shape, 400, 4);
  const EvaOutput a = RunAlone(Kernels(shape), shape, tokens, 96, /*page_seed=*/1);
  const EvaOutput b = RunAlone(Kernels(shape), shape, tokens, 96, /*page_seed=*/2);
  EXPECT_EQ(a.out, b.out);
}

// Steps of a ragged batch: some sequences prefill, some decode, at different places.
TEST_P(EvaLawsTest, ABatchEqualsItsSequencesAloneToTheBit) {
  const EvaShape shape = Shape(/*window=*/384, /*chunk=*/6);
  const std::vector<int> history = {0, 1, 383, 384, 800, 200, 524};
  const std::vector<int> counts = {384, 1, 1, 160, 1, 28, 1};
  ThreadedWorkerPool threads(3);
  const EvaKernels batch_kernels = EvaKernels::Cpu(shape, RandomHeadVectors(shape, 11), threads);
  PagePool pages(shape, 300, 9);
  std::vector<EvaSequence> states(history.size());
  std::vector<EvaSequence*> pointers;
  Tokens batch;
  std::vector<float> want;
  for (size_t i = 0; i < history.size(); ++i) {
    const Tokens tokens = RandomTokens(shape, history[i] + counts[i], 100 + uint32_t(i));
    batch_kernels.Run(pages, states[i], tokens.Slice(shape, 0, history[i]), 96);
    pointers.push_back(&states[i]);
    const Tokens next = tokens.Slice(shape, history[i], counts[i]);
    batch.q.insert(batch.q.end(), next.q.begin(), next.q.end());
    batch.k.insert(batch.k.end(), next.k.begin(), next.k.end());
    batch.v.insert(batch.v.end(), next.v.begin(), next.v.end());
    const EvaOutput alone = RunAlone(Kernels(shape), shape, tokens, 1);
    want.insert(want.end(), alone.out.end() - counts[i] * shape.width(), alone.out.end());
  }

  const int runs_before = threads.num_runs();
  const EvaOutput together = batch_kernels.Step(pages, pointers, counts, batch);
  EXPECT_GT(threads.num_runs(), runs_before);

  EXPECT_EQ(together.out, want);
}

TEST_P(EvaLawsTest, WorkersDoNotChangeABit) {
  const EvaShape shape = Shape(/*window=*/700, /*chunk=*/2);
  const Tokens tokens = RandomTokens(shape, 1500, 3);
  ThreadedWorkerPool threads(4);
  const EvaKernels parallel = EvaKernels::Cpu(shape, RandomHeadVectors(shape, 11), threads);
  EXPECT_EQ(RunAlone(parallel, shape, tokens, 700).out,
            RunAlone(Kernels(shape), shape, tokens, 700).out);
  EXPECT_GT(threads.num_runs(), 0);
}

TEST_P(EvaLawsTest, OutputsLieInTheBoxOfTheValues) {
  const EvaShape shape = Shape(/*window=*/32, /*chunk=*/4);
  Tokens tokens = RandomTokens(shape, 100, 5);
  for (float& q : tokens.q) q *= 10;
  const EvaOutput eva = RunAlone(Kernels(shape), shape, tokens, 32);
  const double slack = GetParam().dtype == DType::kFloat32 ? 1e-6 : 2e-2;
  for (int d = 0; d < shape.width(); ++d) {
    float low = INFINITY, high = -INFINITY;
    for (int t = 0; t < 100; ++t) {
      low = std::min(low, tokens.v[t * shape.width() + d]);
      high = std::max(high, tokens.v[t * shape.width() + d]);
      ASSERT_GE(eva.out[t * shape.width() + d], low - slack) << t;
      ASSERT_LE(eva.out[t * shape.width() + d], high + slack) << t;
    }
  }
}

TEST_P(EvaLawsTest, OrderInsideAFinishedChunkDoesNotMatterLater) {
  const EvaShape shape = Shape(/*window=*/32, /*chunk=*/8);
  Tokens tokens = RandomTokens(shape, 80, 6);
  const EvaOutput before = RunAlone(Kernels(shape), shape, tokens, 32);
  const auto swap_tokens = [&](std::vector<float>& rows, int a, int b) {
    std::swap_ranges(rows.begin() + a * shape.width(), rows.begin() + (a + 1) * shape.width(),
                     rows.begin() + b * shape.width());
  };
  swap_tokens(tokens.k, 9, 14);
  swap_tokens(tokens.v, 9, 14);
  const EvaOutput after = RunAlone(Kernels(shape), shape, tokens, 32);

  const size_t later = 32 * shape.width();
  EXPECT_LE(MaxError(std::span(after.out).subspan(later), std::span(before.out).subspan(later)),
            Tolerance());
  EXPECT_GT(MaxError(after.out, before.out), 0.01) << "the first window does see the order";
}

TEST_P(EvaLawsTest, LaterTokensDoNotChangeEarlierOnes) {
  const EvaShape shape = Shape(/*window=*/32, /*chunk=*/8);
  const Tokens tokens = RandomTokens(shape, 80, 7);
  const EvaOutput all = RunAlone(Kernels(shape), shape, tokens, 32);
  const EvaOutput prefix = RunAlone(Kernels(shape), shape, tokens.Slice(shape, 0, 50), 32);
  EXPECT_TRUE(std::equal(prefix.out.begin(), prefix.out.end(), all.out.begin()));
}

}  // namespace
}  // namespace evaserve

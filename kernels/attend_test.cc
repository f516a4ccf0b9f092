#include "kernels/attend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "absl/functional/function_ref.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

// Float32 sums of up to a thousand products of unit size, against float64.
constexpr double kFloat32Tolerance = 1e-5;
// Queries and weights are rounded to bfloat16, 2^-9 relative each; keys and values are not, since
// the reference reads the same pages.
constexpr double kBFloat16Tolerance = 4e-2;

double Tolerance(DType dtype) {
  return dtype == DType::kFloat32 ? kFloat32Tolerance : kBFloat16Tolerance;
}

// One query on a window of `num_window` slots, in two pages.
struct OneQuery {
  OneQuery() : pages(shape, 4, 1), window_pages{pages.Take(), pages.Take()} {
    sequence.slots.window_pages = window_pages;
    sequence.slots.num_window = 70;
    sequence.num_queries = 1;
    params.pages = pages.store();
    params.q = q.data();
    params.out = out.data();
    params.q_stride = params.out_stride = shape.width();
    params.sequences = {&sequence, 1};
  }
  OneQuery(const OneQuery&) = delete;

  std::string Error() { return std::string(Validate(params).message()); }

  EvaShape shape;
  PagePool pages;
  std::vector<int32_t> window_pages;
  std::vector<float> q = std::vector<float>(16), out = std::vector<float>(16);
  AttendSequence sequence;
  AttendParams params;
};

TEST(AttendValidateTest, TakesAQueryOnItsWindow) {
  OneQuery one;
  EXPECT_TRUE(Validate(one.params).ok()) << one.Error();
}

TEST(AttendValidateTest, NamesAPageOutOfRange) {
  OneQuery one;
  one.window_pages[1] = 4;
  EXPECT_EQ(one.Error(), "window_pages[1] is 4, must be in [0, 4)");
}

TEST(AttendValidateTest, NamesSlotsWithoutAPage) {
  OneQuery one;
  one.sequence.slots.num_summaries = 1;
  EXPECT_EQ(one.Error(), "summary_pages: 1 slots in 0 pages of 64");
}

TEST(AttendValidateTest, NamesQueriesThatTheWindowLacks) {
  OneQuery one;
  one.sequence.num_queries = 71;
  EXPECT_THAT(one.Error(), HasSubstr("num_queries is 71"));
}

TEST(AttendValidateTest, NamesAStrideThatIsTooShort) {
  OneQuery one;
  one.params.q_stride = 15;
  EXPECT_THAT(one.Error(), HasSubstr("q_stride and out_stride are 15 and 16"));
}

TEST(AttendValidateTest, NamesAHeadDimThatIsNotAMultipleOfEight) {
  OneQuery one;
  one.params.pages.layout.head_dim = 12;
  EXPECT_EQ(one.Error(), "head_dim is 12, must be a multiple of 8 in [8, 512]");
}

TEST(AttendValidateTest, RefusesATreeInWhichAQueryDoesNotSeeItself) {
  OneQuery one;
  const uint8_t mask = 0;
  one.sequence.tree_mask = &mask;
  EXPECT_EQ(one.Error(), "tree_mask[0][0] is 0: a query must see itself");
}

// The shape and how many tokens.
struct GridCase {
  EvaShape shape;
  int num_tokens = 0;
};

std::vector<GridCase> Grid() {
  std::vector<GridCase> cases;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int head_dim : {8, 24, 40, 64, 80, 128, 136, 256}) {
      for (const int num_tokens : {1, 2, 7, 63, 64, 65, 150}) {
        EvaShape shape{2, head_dim, 48, 6, dtype, 1.f / std::sqrt(float(head_dim))};
        cases.push_back({shape, num_tokens});
      }
    }
    // Windows of several blocks of pages; a chunk that is the window; chunks of one.
    cases.push_back({{1, 64, 640, 16, dtype, 0.125f}, 1500});
    cases.push_back({{3, 32, 40, 40, dtype, 0.2f}, 161});
    cases.push_back({{1, 16, 100, 1, dtype, 0.25f}, 450});
    cases.push_back({{2, 16, 147, 49, dtype, 0.25f}, 500});
  }
  return cases;
}

class AttendGridTest : public testing::Test {
 protected:
  ~AttendGridTest() override { ForceCpuKernels(usual_); }

  // Calls `check` with the kernels of each instruction set that this machine has.
  void ForEachIsa(const EvaShape& shape, const HeadVectors& vectors,
                  absl::FunctionRef<void(const EvaKernels&)> check) {
    for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
      if (!ForceCpuKernels(isa)) continue;
      SCOPED_TRACE(isa);
      check(EvaKernels::Cpu(shape, vectors, workers_));
    }
  }

 private:
  const std::string usual_ = GetCpuKernels().name;
  SerialWorkerPool workers_;
};

TEST_F(AttendGridTest, CpuAgreesWithTheReference) {
  for (const auto& [shape, num_tokens] : Grid()) {
    SCOPED_TRACE(testing::Message()
                 << Name(shape.dtype) << " head_dim " << shape.head_dim << " window "
                 << shape.window << " chunk " << shape.chunk << " tokens " << num_tokens);
    const double tolerance = Tolerance(shape.dtype);
    const HeadVectors vectors = RandomHeadVectors(shape, 5);
    const Tokens tokens = RandomTokens(shape, num_tokens, 7);
    const EvaOutput want =
        RunAlone(EvaKernels::Reference(shape, vectors), shape, tokens, shape.window);
    ForEachIsa(shape, vectors, [&, &shape = shape](const EvaKernels& cpu) {
      const EvaOutput got = RunAlone(cpu, shape, tokens, shape.window);
      EXPECT_LE(MaxError(got.out, want.out), tolerance);
      EXPECT_LE(MaxError(got.lse, want.lse), tolerance);
    });
  }
}

// Keys along one direction, so that the logits of a row follow `level` of the token.
Tokens TokensWithLevels(const EvaShape& shape, int count, double (*level)(int token)) {
  Tokens tokens = RandomTokens(shape, count, 3);
  for (int t = 0; t < count; ++t) {
    for (int d = 0; d < shape.width(); ++d) {
      tokens.q[t * shape.width() + d] = 1.f;
      tokens.k[t * shape.width() + d] = static_cast<float>(level(t));
    }
  }
  return tokens;
}

// Logits that rise or jump by far more than the weights' headroom of 2^16, and weights that vanish.
TEST_F(AttendGridTest, FollowsLogitsThatRiseAndJump) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const EvaShape shape{1, 16, 1024, 4, dtype, 1.f};
    // q times log2(e) is rounded to bfloat16, so a bfloat16 logit of 400 may be off by one.
    const double out_tolerance = dtype == DType::kFloat32 ? 2e-4 : 0.5;
    const double lse_tolerance = dtype == DType::kFloat32 ? 1e-4 : 2.0;
    const HeadVectors vectors = RandomHeadVectors(shape, 5);
    const Tokens rising = TokensWithLevels(shape, 900, [](int t) { return t * 0.03125; });
    const Tokens jumping =
        TokensWithLevels(shape, 900, [](int t) { return (t * 7919 % 601 - 300) * 0.0625; });
    for (const Tokens& tokens : {rising, jumping}) {
      const EvaOutput want =
          RunAlone(EvaKernels::Reference(shape, vectors), shape, tokens, shape.window);
      ForEachIsa(shape, vectors, [&](const EvaKernels& cpu) {
        const EvaOutput got = RunAlone(cpu, shape, tokens, shape.window);
        EXPECT_LE(MaxError(got.out, want.out), out_tolerance);
        EXPECT_LE(MaxError(got.lse, want.lse), lse_tolerance);
        EXPECT_EQ(RunAlone(cpu, shape, tokens, 1).out, got.out);
      });
    }
  }
}

TEST(AttendCpuTest, ReadsStridedQueriesAndWritesStridedRows) {
  const EvaShape shape{2, 16, 64, 4, DType::kFloat32, 0.25f};
  SerialWorkerPool workers;
  const Tokens tokens = RandomTokens(shape, 5, 3);
  PagePool pages(shape, 2, 1);
  EvaSequence state;
  EvaSequence* const one = &state;
  const int count = 5;
  const EvaKernels kernels = EvaKernels::Cpu(shape, RandomHeadVectors(shape, 1), workers);
  const EvaOutput want = kernels.Step(pages, {&one, 1}, {&count, 1}, tokens);

  constexpr int kQStride = 50, kOutStride = 37;
  std::vector<float> q(5 * kQStride, NAN), out(5 * kOutStride, 42.f);
  for (int i = 0; i < 5; ++i) {
    std::copy_n(tokens.q.begin() + i * 32, 32, q.begin() + i * kQStride);
  }
  const AttendSequence sequence = {state.slots(), 0, 5, nullptr};
  AttendParams params;
  params.pages = pages.store();
  params.scale = shape.scale;
  params.q = q.data();
  params.q_stride = kQStride;
  params.out = out.data();
  params.out_stride = kOutStride;
  params.sequences = {&sequence, 1};
  ASSERT_TRUE(AttendCpu(params, workers).ok());

  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(MaxError({out.data() + i * kOutStride, 32}, {want.out.data() + i * 32, 32}), 0) << i;
    for (int j = 32; j < kOutStride; ++j) EXPECT_EQ(out[i * kOutStride + j], 42.f) << i;
  }
}

TEST(AttendCpuTest, ATreeOfOnePathIsCausal) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const EvaShape shape{2, 24, 300, 4, dtype, 0.2f};
    SerialWorkerPool workers;
    const EvaKernels kernels = EvaKernels::Cpu(shape, RandomHeadVectors(shape, 1), workers);
    const Tokens tokens = RandomTokens(shape, 290, 3);
    constexpr int kTree = 23;
    std::vector<uint8_t> mask(kTree * kTree);
    for (int i = 0; i < kTree; ++i) std::fill_n(mask.begin() + i * kTree, i + 1, 1);

    const auto run = [&](const uint8_t* tree_mask) {
      PagePool pages(shape, 8, 1);
      EvaSequence sequence;
      kernels.Run(pages, sequence, tokens.Slice(shape, 0, 250), 300);
      EvaSequence* const one = &sequence;
      return kernels.Step(pages, {&one, 1}, {&kTree, 1}, tokens.Slice(shape, 250, kTree),
                          tree_mask);
    };
    EXPECT_EQ(run(mask.data()).out, run(nullptr).out);
  }
}

}  // namespace
}  // namespace evaserve

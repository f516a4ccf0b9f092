#include "kernels/summarize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"

namespace evaserve {
namespace {

// A window of `tokens` tokens folded into chunks; the summaries as [chunk][key | value of each
// head].
std::vector<float> Fold(const EvaShape& shape, const Tokens& tokens, WorkerPool* workers) {
  const HeadVectors vectors = RandomHeadVectors(shape, 3);
  const EvaKernels kernels =
      workers ? EvaKernels::Cpu(shape, vectors, *workers) : EvaKernels::Reference(shape, vectors);
  PagePool pages(shape, 40, 2);
  EvaSequence sequence;
  EvaSequence* const one = &sequence;
  const int count = tokens.count(shape);
  kernels.Step(pages, {&one, 1}, {&count, 1}, tokens);
  kernels.Fold(pages, sequence, count / shape.chunk);

  const PageStore store = pages.store();
  std::vector<float> summaries;
  for (int i = 0; i < sequence.num_summaries; ++i) {
    const int page = sequence.summary_pages[i / kPageSlots], slot = i % kPageSlots;
    for (int h = 0; h < shape.num_heads; ++h) {
      for (int d = 0; d < shape.head_dim; ++d) {
        summaries.push_back(
            LoadElement(store.keys(page, h), shape.dtype, store.layout.key_index(slot, d)));
        summaries.push_back(
            LoadElement(store.values(page, h), shape.dtype, store.layout.value_index(slot, d)));
      }
    }
  }
  return summaries;
}

// Value logits reach 40 here, so float32 moves a weight by some 1e-6 of itself; or a float32
// rounding falls on the other side of a bfloat16 tie.
double Tolerance(DType dtype) { return dtype == DType::kFloat32 ? 2e-5 : 2e-2; }

TEST(SummarizeTest, CpuAgreesWithTheReference) {
  SerialWorkerPool workers;
  const std::string usual = GetCpuKernels().name;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int head_dim : {8, 24, 64, 128}) {
      for (const int chunk : {1, 2, 3, 5, 16, 33, 100}) {
        const EvaShape shape{2, head_dim, 300, chunk, dtype, 0.3f};
        const Tokens tokens = RandomTokens(shape, 230, 8);
        const std::vector<float> want = Fold(shape, tokens, nullptr);
        for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
          if (!ForceCpuKernels(isa)) continue;
          SCOPED_TRACE(testing::Message()
                       << isa << " " << Name(dtype) << " " << head_dim << " chunk " << chunk);
          EXPECT_LE(MaxError(Fold(shape, tokens, &workers), want), Tolerance(dtype));
        }
      }
    }
  }
  ForceCpuKernels(usual);
}

TEST(SummarizeTest, AChunkOfOneTokenIsThatToken) {
  SerialWorkerPool workers;
  const EvaShape shape{1, 8, 64, 1, DType::kFloat32, 0.3f};
  const Tokens tokens = RandomTokens(shape, 9, 8);
  const std::vector<float> summaries = Fold(shape, tokens, &workers);
  for (int i = 0; i < 9 * 8; ++i) {
    EXPECT_EQ(summaries[2 * i], tokens.k[i]) << i;
    EXPECT_EQ(summaries[2 * i + 1], tokens.v[i]) << i;
  }
}

// The logit of a value has -|k|^2 / 2 in it: tens of thousands here.
TEST(SummarizeTest, LargeKeysDoNotOverflow) {
  SerialWorkerPool workers;
  const EvaShape shape{1, 64, 64, 16, DType::kFloat32, 0.125f};
  Tokens tokens = RandomTokens(shape, 64, 8);
  for (float& k : tokens.k) k *= 100;
  const double scale = 100;  // of the keys
  EXPECT_LE(MaxError(Fold(shape, tokens, &workers), Fold(shape, tokens, nullptr)), 1e-4 * scale);
}

struct Params {
  Params() : pages(shape, 4, 1), window{pages.Take()}, summaries{pages.Take()} {
    sequence = {window, 16, summaries, 0};
    params.pages = pages.store();
    params.chunk = 4;
    params.sequences = {&sequence, 1};
  }
  Params(const Params&) = delete;
  std::string Error() const { return std::string(Validate(params).message()); }

  EvaShape shape;
  PagePool pages;
  std::vector<int32_t> window, summaries;
  SummarizeSequence sequence;
  SummarizeParams params;
};

TEST(SummarizeValidateTest, TakesAWholeWindow) {
  const Params p;
  EXPECT_TRUE(Validate(p.params).ok()) << p.Error();
}

TEST(SummarizeValidateTest, NamesAChunkThatIsNotPositive) {
  Params p;
  p.params.chunk = 0;
  EXPECT_EQ(p.Error(), "chunk is 0, must be positive");
}

TEST(SummarizeValidateTest, NamesTokensWithoutAPage) {
  Params p;
  p.sequence.num_chunks = 17;
  EXPECT_EQ(p.Error(), "window_pages: 68 slots in 1 pages of 64");
}

TEST(SummarizeValidateTest, NamesSummariesWithoutAPage) {
  Params p;
  p.sequence.summary_begin = 60;
  EXPECT_EQ(p.Error(), "summary_pages: 76 slots in 1 pages of 64");
}

TEST(SummarizeValidateTest, NamesAPageOutOfRange) {
  Params p;
  p.summaries[0] = 9;
  EXPECT_EQ(p.Error(), "summary_pages[0] is 9, must be in [0, 4)");
}

}  // namespace
}  // namespace evaserve

// The published code's results, at the level of one operation, over paged slots.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/rope_table.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"
#include "kernels/testing/golden_reader.h"

namespace evaserve {
namespace {

// One [heads, tokens, head_dim] tensor out of a batch of them, as rows of tokens.
std::vector<float> TokenRows(const GoldenTensor& tensor, const EvaShape& shape, int64_t batch,
                             int64_t num_tokens) {
  std::vector<float> rows(num_tokens * shape.width());
  for (int64_t h = 0; h < shape.num_heads; ++h) {
    for (int64_t t = 0; t < num_tokens; ++t) {
      for (int64_t d = 0; d < shape.head_dim; ++d) {
        const int64_t head = batch * shape.num_heads + h;
        rows[(t * shape.num_heads + h) * shape.head_dim + d] =
            static_cast<float>(tensor.values[(head * num_tokens + t) * shape.head_dim + d]);
      }
    }
  }
  return rows;
}

EvaShape ShapeOf(const nlohmann::json& c) {
  EvaShape shape;
  shape.num_heads = c.at("H");
  shape.head_dim = c.at("D");
  shape.window = c.at("W");
  shape.chunk = c.at("C");
  shape.scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim));
  return shape;
}

// Every summary of the sequence as rows of `num_heads * head_dim`.
std::vector<float> Summaries(const PagePool& pages, const EvaSequence& sequence, bool keys) {
  const PageStore store = pages.store();
  const PageLayout& layout = store.layout;
  std::vector<float> rows;
  for (int i = 0; i < sequence.num_summaries; ++i) {
    const int page = sequence.summary_pages[i / kPageSlots];
    for (int h = 0; h < layout.num_heads; ++h) {
      for (int d = 0; d < layout.head_dim; ++d) {
        rows.push_back(keys ? LoadElement(store.keys(page, h), layout.dtype,
                                          layout.key_index(i % kPageSlots, d))
                            : LoadElement(store.values(page, h), layout.dtype,
                                          layout.value_index(i % kPageSlots, d)));
      }
    }
  }
  return rows;
}

class GoldenTest : public testing::Test {
 protected:
  void CheckAttention(const GoldenFile& file, const nlohmann::json& c, int cut) {
    const std::string name = c.at("case");
    SCOPED_TRACE(name);
    const EvaShape shape = ShapeOf(c);
    const int64_t n = c.at("N");
    const int64_t num_chunks = n / shape.chunk;
    const HeadVectors vectors = {file.Get(name + ".mu").floats(), file.Get(name + ".phi").floats()};
    const EvaKernels kernels = EvaKernels::Cpu(shape, vectors, workers_);
    for (int64_t b = 0; b < c.at("B").get<int64_t>(); ++b) {
      const Tokens tokens = {TokenRows(file.Get(name + ".q"), shape, b, n),
                             TokenRows(file.Get(name + ".k"), shape, b, n),
                             TokenRows(file.Get(name + ".v"), shape, b, n)};
      PagePool pages(shape, static_cast<int>(n / 16) + 8, 1);
      EvaSequence sequence;
      const EvaOutput output = kernels.Run(pages, sequence, tokens, cut);
      // The complete chunks of the unfinished window, which nothing sees yet.
      kernels.Fold(pages, sequence, sequence.num_window / shape.chunk);

      EvaShape scalar = shape;
      scalar.head_dim = 1;
      const auto check = [&](const char* what, const std::vector<float>& got, const EvaShape& rows,
                             int64_t count) {
        const auto want = TokenRows(file.Get(name + "." + what), rows, b, count);
        EXPECT_LE(MaxError(got, want), c.at("tol_fp32").at(what).get<double>()) << what;
      };
      check("out", output.out, shape, n);
      check("lse", output.lse, scalar, n);
      check("rfa_k", Summaries(pages, sequence, true), shape, num_chunks);
      check("rfa_v", Summaries(pages, sequence, false), shape, num_chunks);
    }
  }

  SerialWorkerPool workers_;
};

TEST_F(GoldenTest, AttentionInWholeWindows) {
  if (!GoldenFile::Exists("evabyte_attn")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("evabyte_attn");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) CheckAttention(file, c, c.at("W"));
}

TEST_F(GoldenTest, AttentionTokenByToken) {
  if (!GoldenFile::Exists("evabyte_attn")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("evabyte_attn");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) CheckAttention(file, c, 1);
}

TEST_F(GoldenTest, TreeAttention) {
  if (!GoldenFile::Exists("evabyte_tree_attn"))
    GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("evabyte_tree_attn");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) {
    const std::string name = c.at("case");
    SCOPED_TRACE(name);
    const EvaShape shape = ShapeOf(c);
    const int64_t n = c.at("N");
    const int tree_tokens = c.at("tree_tokens");
    const HeadVectors vectors = {file.Get(name + ".mu").floats(), file.Get(name + ".phi").floats()};
    const EvaKernels kernels = EvaKernels::Cpu(shape, vectors, workers_);
    PagePool pages(shape, static_cast<int>(n / 16) + 8, 1);
    EvaSequence sequence;
    const std::vector<float> history_k = TokenRows(file.Get(name + ".k"), shape, 0, n);
    const std::vector<float> history_v = TokenRows(file.Get(name + ".v"), shape, 0, n);
    kernels.Run(pages, sequence, {history_k, history_k, history_v}, shape.window);

    const Tokens tree = {TokenRows(file.Get(name + ".tree_q"), shape, 0, tree_tokens),
                         TokenRows(file.Get(name + ".tree_k"), shape, 0, tree_tokens),
                         TokenRows(file.Get(name + ".tree_v"), shape, 0, tree_tokens)};
    const std::vector<uint8_t> mask = file.Get(name + ".tree_mask").bytes();
    EvaSequence* const one = &sequence;
    const EvaOutput output = kernels.Step(pages, {&one, 1}, {&tree_tokens, 1}, tree, mask.data());

    const auto want = TokenRows(file.Get(name + ".out"), shape, 0, tree_tokens);
    EXPECT_LE(MaxError(output.out, want), c.at("tol_fp32").get<double>());
  }
}

// The frequencies may differ by one float32 step, which moves an angle by position times that.
TEST_F(GoldenTest, RopeTable) {
  if (!GoldenFile::Exists("evabyte_rope")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  constexpr double kFrequencyTolerance = 6e-8;  // relative
  constexpr double kTolerance = 2e-7;           // of cos and sin, for equal frequencies
  const GoldenFile file("evabyte_rope");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) {
    const std::string name = c.at("case");
    SCOPED_TRACE(name);
    RopeOptions options;
    options.head_dim = c.at("head_dim");
    options.theta = c.at("theta");
    options.num_positions = c.at("max_position_embeddings");
    const RopeTables tables(options);
    const int half = options.head_dim / 2;
    const GoldenTensor frequencies = file.Get(name + ".inv_freq");
    const GoldenTensor positions = file.Get(name + ".positions");
    const GoldenTensor cos = file.Get(name + ".cos"), sin = file.Get(name + ".sin");
    for (int i = 0; i < half; ++i) {
      const double step = std::abs(tables.inverse_frequencies()[i] - frequencies.values[i]);
      ASSERT_LE(step, kFrequencyTolerance * frequencies.values[i]) << i;
      for (size_t p = 0; p < positions.values.size(); ++p) {
        const int64_t position = static_cast<int64_t>(positions.values[p]);
        const int64_t ours = position * half + i;
        const int64_t theirs = static_cast<int64_t>(p) * options.head_dim + i;
        // A step of the frequency may also turn the rounding of the angle.
        const double tolerance = kTolerance + (step > 0 ? 2.5 * position * step : 0.0);
        ASSERT_NEAR(tables.table().cos[ours], cos.values[theirs], tolerance) << position;
        ASSERT_NEAR(tables.table().sin[ours], sin.values[theirs + half], tolerance) << position;
      }
    }
  }
}

}  // namespace
}  // namespace evaserve

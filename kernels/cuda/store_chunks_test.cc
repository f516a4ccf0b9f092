#include "kernels/cuda/store_chunks.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/store_plan.h"
#include "kernels/cuda/testing/elements.h"
#include "kernels/rope_table.h"

namespace evaserve {
namespace {

constexpr int kNumPositions = 700;

struct Sequence {
  int slot_begin = 0;
  int num_tokens = 0;
  int summary_begin = 0;
  bool is_tree = false;
};

// Windows and summaries across page boundaries, chunks that stay open, and a tree that begins in
// the middle of a chunk.
const std::vector<Sequence> kRagged = {
    {0, 1, 0}, {64, 131, 120}, {0, 64, 3}, {37, 30, 0, true}, {0, 77, 0}};

struct Options {
  int chunk = 16;
  int num_heads = 3;
  float spread = 1.f;  // of queries, keys and values
  std::vector<Sequence> sequences = kRagged;
  std::vector<int> pieces = {1000};  // tokens of a sequence that a step takes, in turn
  uint64_t schedule = 1;
};

// Of what should be a rounded row, |row - reference| / |reference|, the largest; NaN if one is.
struct Error {
  double q = 0., keys = 0., summaries = 0.;
};

void Enlarge(double& error, double other) {
  if (std::isnan(other) || other > error) error = other;
}

using Row = std::vector<double>;

double Dot(const Row& a, const Row& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.);
}

double RelativeError(const Row& got, const Row& want) {
  double difference = 0.;
  for (size_t i = 0; i < got.size(); ++i) difference += std::pow(got[i] - want[i], 2);
  return std::sqrt(difference / Dot(want, want));
}

// sum_j softmax_j(logits) rows_j
Row WeightedMean(const Row& logits, const std::vector<Row>& rows) {
  const double max = *std::max_element(logits.begin(), logits.end());
  Row mean(rows[0].size(), 0.);
  double weights = 0.;
  for (size_t j = 0; j < rows.size(); ++j) {
    const double weight = std::exp(logits[j] - max);
    weights += weight;
    for (size_t d = 0; d < mean.size(); ++d) mean[d] += weight * rows[j][d];
  }
  for (double& x : mean) x /= weights;
  return mean;
}

// A random batch, stored step by step, and the float64 loops that say what is right.
template <DType kType, int kHeadDim>
class StoreCase {
 public:
  using Element = Bits<kType>;

  explicit StoreCase(const Options& options)
      : options_(options), rope_({.head_dim = kHeadDim, .num_positions = kNumPositions}) {
    for (const Sequence& s : options.sequences) {
      token_begin_.push_back(static_cast<int>(positions_.size()));
      const int first = static_cast<int>(random_() % 300);
      for (int i = 0; i < s.num_tokens; ++i) positions_.push_back(first + (s.is_tree ? i / 3 : i));
    }
    const float head_spread = options.spread / std::sqrt(static_cast<float>(kHeadDim));
    for (auto* x : {&mu_, &phi_}) {
      x->resize(width());
      for (float& value : *x) value = Normal(head_spread);
    }
    qkv_.resize(positions_.size() * stride());
    for (Element& x : qkv_) x = BitsFromFloat<kType>(Normal(options.spread));
    before_ = qkv_;
    TakePages();
    Run();
  }

  const std::vector<Element>& pool() const { return pool_; }
  const std::vector<Element>& qkv() const { return qkv_; }
  int num_summaries() const { return num_summaries_; }

  // Also that values are copies, and that nothing was written but what should be.
  Error Compare() const {
    Error error;
    std::vector<bool> is_written(pool_.size());
    std::vector<Element> qkv = before_;
    for (size_t i = 0; i < options_.sequences.size(); ++i) {
      for (int head = 0; head < options_.num_heads; ++head) {
        CompareTokens(i, head, error, qkv, is_written);
        if (!options_.sequences[i].is_tree) CompareSummaries(i, head, error, is_written);
      }
    }
    EXPECT_TRUE(qkv == qkv_) << "k, v or the space between tokens has changed";
    for (size_t i = 0; i < pool_.size(); ++i) {
      if (!is_written[i] && pool_[i] != kPoison<kType>) {
        ADD_FAILURE() << "element " << i << " of the pool was written";
        break;
      }
    }
    return error;
  }

 private:
  using Image = PageImageOf<kType, kHeadDim>;
  static constexpr int kElementBytes = sizeof(Element);

  int width() const { return options_.num_heads * kHeadDim; }
  int64_t stride() const { return 3 * width() + 4; }
  int64_t PageBytes() const { return CudaPageBytes(options_.num_heads, kHeadDim, kElementBytes); }
  float Normal(float spread) { return std::normal_distribution<float>(0.f, spread)(random_); }

  void TakePages() {
    const auto num_pages = [](int slots) { return (slots + kCudaPageSlots - 1) / kCudaPageSlots; };
    int count = 1;  // one is nobody's
    window_pages_.resize(options_.sequences.size());
    summary_pages_.resize(options_.sequences.size());
    for (size_t i = 0; i < options_.sequences.size(); ++i) {
      const Sequence& s = options_.sequences[i];
      const int end = s.slot_begin + s.num_tokens;
      window_pages_[i].resize(num_pages(end));
      summary_pages_[i].resize(num_pages(s.summary_begin + end / options_.chunk));
      count += static_cast<int>(window_pages_[i].size() + summary_pages_[i].size());
    }
    std::vector<int32_t> pages(count);
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random_);
    for (auto* lists : {&window_pages_, &summary_pages_}) {
      for (std::vector<int32_t>& list : *lists) {
        for (int32_t& page : list) {
          page = pages.back();
          pages.pop_back();
        }
      }
    }
    pool_.assign(count * PageBytes() / kElementBytes, kPoison<kType>);
  }

  void Run() {
    std::vector<int> done(options_.sequences.size(), 0);
    for (size_t step = 0;; ++step) {
      std::vector<CudaStoreSequence> batch;
      for (size_t i = 0; i < done.size(); ++i) {
        const Sequence& s = options_.sequences[i];
        const int size = options_.pieces[(step + i) % options_.pieces.size()];
        const int count = std::min(size, s.num_tokens - done[i]);
        if (count == 0) continue;
        batch.push_back({token_begin_[i] + done[i], count, window_pages_[i], s.slot_begin + done[i],
                         !s.is_tree, summary_pages_[i], s.summary_begin});
        done[i] += count;
      }
      if (batch.empty()) return;
      Launch(PlanStoreChunks(batch, options_.chunk));
    }
  }

  void Launch(const std::vector<CudaChunk>& chunks) {
    for (const CudaChunk& chunk : chunks) num_summaries_ += chunk.summary_page >= 0 ? 1 : 0;
    StoreChunksArgs args;
    args.chunks = chunks.data();
    args.num_chunks = static_cast<int>(chunks.size());
    args.num_heads = options_.num_heads;
    args.chunk = options_.chunk;
    args.pool = reinterpret_cast<char*>(pool_.data());
    args.page_bytes = PageBytes();
    args.q = qkv_.data();
    args.k = qkv_.data() + width();
    args.v = qkv_.data() + 2 * width();
    args.token_stride = stride();
    args.positions = positions_.data();
    args.cos = rope_.table().cos;
    args.sin = rope_.table().sin;
    args.mu = mu_.data();
    args.phi = phi_.data();
    args.scale = Scale();
    using Kernel = StoreChunk<kType, kHeadDim>;
    const int num_work = args.num_chunks * args.num_heads;
    const absl::Status status = emulator::Launch(
        {(num_work + Kernel::kWarps - 1) / Kernel::kWarps, Kernel::kThreads, 0, options_.schedule},
        [&] { StoreChunksKernel<kType, kHeadDim>(args); });
    EXPECT_TRUE(status.ok()) << status;
  }

  static float Scale() { return 1.f / std::sqrt(static_cast<float>(kHeadDim)); }

  static Row ToRow(const Element* elements) {
    Row row(kHeadDim);
    std::transform(elements, elements + kHeadDim, row.begin(), FloatFromBits<kType>);
    return row;
  }
  Row HeadVector(const std::vector<float>& of, int head) const {
    return {of.begin() + head * kHeadDim, of.begin() + (head + 1) * kHeadDim};
  }
  Row Rotated(const Row& x, int position) const {
    constexpr int kHalf = kHeadDim / 2;
    Row y(kHeadDim);
    for (int d = 0; d < kHalf; ++d) {
      const double cos = rope_.table().cos[position * kHalf + d];
      const double sin = rope_.table().sin[position * kHalf + d];
      y[d] = x[d] * cos - x[d + kHalf] * sin;
      y[d + kHalf] = x[d + kHalf] * cos + x[d] * sin;
    }
    return y;
  }

  // Element of the pool where a slot's dimension lies.
  int64_t At(const std::vector<int32_t>& pages, int slot, int head, bool is_value, int dim) const {
    const int64_t image = head * 2 + (is_value ? 1 : 0);
    return (pages[slot / kCudaPageSlots] * PageBytes() + image * Image::kBytes +
            Image::Offset(slot % kCudaPageSlots, dim)) /
           kElementBytes;
  }
  Row Stored(const std::vector<int32_t>& pages, int slot, int head, bool is_value) const {
    Row row(kHeadDim);
    for (int d = 0; d < kHeadDim; ++d) {
      row[d] = FloatFromBits<kType>(pool_[At(pages, slot, head, is_value, d)]);
    }
    return row;
  }
  void MarkWritten(const std::vector<int32_t>& pages, int slot, int head,
                   std::vector<bool>& is_written) const {
    for (int d = 0; d < kHeadDim; ++d) {
      for (const bool is_value : {false, true}) {
        is_written[At(pages, slot, head, is_value, d)] = true;
      }
    }
  }

  void CompareTokens(size_t sequence, int head, Error& error, std::vector<Element>& qkv,
                     std::vector<bool>& is_written) const {
    const std::vector<int32_t>& pages = window_pages_[sequence];
    for (int i = 0; i < options_.sequences[sequence].num_tokens; ++i) {
      const int token = token_begin_[sequence] + i, position = positions_[token];
      const int slot = options_.sequences[sequence].slot_begin + i;
      const int64_t at = token * stride() + head * kHeadDim;
      Enlarge(error.q, RelativeError(ToRow(&qkv_[at]), Rotated(ToRow(&before_[at]), position)));
      Enlarge(error.keys, RelativeError(Stored(pages, slot, head, false),
                                        Rotated(ToRow(&before_[at + width()]), position)));
      EXPECT_EQ(Stored(pages, slot, head, true), ToRow(&before_[at + 2 * width()]))
          << "token " << token;
      std::copy_n(&qkv_[at], kHeadDim, &qkv[at]);  // has been compared
      MarkWritten(pages, slot, head, is_written);
    }
  }

  // Means of the keys as they are stored: one that was rounded the other way would move a logit,
  // and is the business of CompareTokens.
  void CompareSummaries(size_t sequence, int head, Error& error,
                        std::vector<bool>& is_written) const {
    const Sequence& s = options_.sequences[sequence];
    const int chunk = options_.chunk;
    const Row mu = HeadVector(mu_, head), phi = HeadVector(phi_, head);
    for (int c = s.slot_begin / chunk; (c + 1) * chunk <= s.slot_begin + s.num_tokens; ++c) {
      std::vector<Row> keys, values;
      Row by_mu, by_phi;
      for (int slot = c * chunk; slot < (c + 1) * chunk; ++slot) {
        const Row& key = keys.emplace_back(Stored(window_pages_[sequence], slot, head, false));
        values.push_back(Stored(window_pages_[sequence], slot, head, true));
        by_mu.push_back(Dot(mu, key));
        by_phi.push_back(Scale() * (Dot(phi, key) - Dot(key, key) / 2.));
      }
      const std::vector<int32_t>& pages = summary_pages_[sequence];
      const int slot = s.summary_begin + c;
      Enlarge(error.summaries,
              RelativeError(Stored(pages, slot, head, false), WeightedMean(by_mu, keys)));
      Enlarge(error.summaries,
              RelativeError(Stored(pages, slot, head, true), WeightedMean(by_phi, values)));
      MarkWritten(pages, slot, head, is_written);
    }
  }

  const Options options_;
  const RopeTables rope_;
  std::mt19937 random_{1};
  std::vector<int> token_begin_;  // of each sequence
  std::vector<int32_t> positions_;
  std::vector<float> mu_, phi_;
  std::vector<Element> qkv_, before_;  // a row is q, k, v and four more
  std::vector<std::vector<int32_t>> window_pages_, summary_pages_;
  std::vector<Element> pool_;
  int num_summaries_ = 0;
};

template <typename Kernel>
struct Traits;
template <DType kType, int kHeadDim>
struct Traits<StoreChunk<kType, kHeadDim>> {
  using Case = StoreCase<kType, kHeadDim>;
  // Rounding moves an element, and so a row, by half a unit in the last place at most: 2^-8 or
  // 2^-11 of itself. The rest is for float32: a logit's rounding is a relative error of its weight.
  static constexpr double kTolerance = kType == DType::kFloat32    ? 2e-6
                                       : kType == DType::kBFloat16 ? 4e-3
                                                                   : 5e-4;
  // Logits of some hundred, which float32 has to 2e-5 each.
  static constexpr double kLargeLogitsTolerance = kType == DType::kFloat32 ? 5e-5 : kTolerance;
  static std::string Name() {
    return std::string(evaserve::Name(kType)) + "_" + std::to_string(kHeadDim);
  }
};

struct KernelName {
  template <typename Kernel>
  static std::string GetName(int) {
    return Traits<Kernel>::Name();
  }
};

template <typename Kernel>
class StoreChunksTest : public testing::Test {
 protected:
  using Case = typename Traits<Kernel>::Case;
  static void ExpectAgrees(const Case& test,
                           double summaries_tolerance = Traits<Kernel>::kTolerance) {
    const Error error = test.Compare();
    EXPECT_LT(error.q, Traits<Kernel>::kTolerance);
    EXPECT_LT(error.keys, Traits<Kernel>::kTolerance);
    EXPECT_LT(error.summaries, summaries_tolerance);
  }
};

using Kernels = testing::Types<StoreChunk<DType::kFloat32, 32>, StoreChunk<DType::kFloat32, 64>,
                               StoreChunk<DType::kFloat32, 96>, StoreChunk<DType::kFloat32, 128>,
                               StoreChunk<DType::kBFloat16, 32>, StoreChunk<DType::kBFloat16, 64>,
                               StoreChunk<DType::kBFloat16, 96>, StoreChunk<DType::kBFloat16, 128>,
                               StoreChunk<DType::kFloat16, 32>, StoreChunk<DType::kFloat16, 64>,
                               StoreChunk<DType::kFloat16, 96>, StoreChunk<DType::kFloat16, 128>>;
TYPED_TEST_SUITE(StoreChunksTest, Kernels, KernelName);

TYPED_TEST(StoreChunksTest, AgreesWithTheReferenceForEveryChunkSize) {
  for (const int chunk : {4, 16, 32, 64}) {
    SCOPED_TRACE(testing::Message() << "chunk " << chunk);
    const typename TestFixture::Case test({.chunk = chunk});
    EXPECT_GE(test.num_summaries(), 4);
    this->ExpectAgrees(test);
  }
}

TYPED_TEST(StoreChunksTest, HoldsLargeLogits) {
  this->ExpectAgrees(typename TestFixture::Case({.spread = 8.f}),
                     Traits<TypeParam>::kLargeLogitsTolerance);
}

// One call, decoding, and pieces that begin in the middle of chunks.
TYPED_TEST(StoreChunksTest, HowAChunkIsFilledDoesNotChangeABit) {
  for (const int chunk : {4, 32}) {
    const typename TestFixture::Case whole({.chunk = chunk});
    for (const std::vector<int>& pieces : {std::vector{1}, std::vector{5, 3, 42, 7}}) {
      SCOPED_TRACE(testing::Message() << "chunk " << chunk << ", pieces of " << pieces[0]);
      const typename TestFixture::Case test({.chunk = chunk, .pieces = pieces});
      EXPECT_TRUE(test.pool() == whole.pool());
      EXPECT_TRUE(test.qkv() == whole.qkv());
    }
  }
}

TYPED_TEST(StoreChunksTest, AnOpenChunkHasNoSummary) {
  const typename TestFixture::Case test({.sequences = {{0, 15}, {32, 7}, {0, 32, 0, true}}});
  EXPECT_EQ(test.num_summaries(), 0);
  this->ExpectAgrees(test);
}

TYPED_TEST(StoreChunksTest, TheScheduleDoesNotChangeABit) {
  const typename TestFixture::Case once({.schedule = 0}), again({.schedule = 9});
  EXPECT_TRUE(once.pool() == again.pool());
  EXPECT_TRUE(once.qkv() == again.qkv());
}

}  // namespace
}  // namespace evaserve

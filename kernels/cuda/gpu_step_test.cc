// On a device, or on the emulator where there is none: whichever the program is linked with.

#include "kernels/cuda/gpu_step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/gpu_graphs.h"
#include "kernels/cuda/testing/attend_case.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

constexpr double kTolerance = 4e-3;  // one rounding to bfloat16

class GpuStepTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Gpu>> gpu = Gpu::Open(0);
    if (!gpu.ok()) GTEST_SKIP() << gpu.status();
    gpu_ = *std::move(gpu);
  }

  GpuMemory ToDevice(const std::vector<uint16_t>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(uint16_t));
    auto memory = gpu_->Allocate(bytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    EXPECT_TRUE(gpu_->ToDevice(memory->as<void>(), values.data(), bytes).ok());
    return *std::move(memory);
  }

  GpuStep StepFor(const AttendCase::Options& options) {
    return GpuStep({.shape = {options.type, options.head_dim},
                    .num_heads = options.num_heads,
                    .chunk = 16,
                    .scale = 1.f / std::sqrt(static_cast<float>(options.head_dim))},
                   *gpu_);
  }

  static absl::Status Prepare(GpuStep& step, const AttendCase& test,
                              const std::vector<AttendSequence>& sequences,
                              const StepRoom* room = nullptr) {
    const std::vector<int32_t> positions(test.num_tokens());
    return step.Prepare(
        {.num_rows = test.num_tokens(), .positions = positions, .attends = sequences},
        test.num_pages(), room);
  }

  // What attention makes of the case, in the case.
  void Attend(const AttendCase::Options& options, AttendCase& test) {
    GpuStep step = StepFor(options);
    const std::vector<AttendSequence> sequences = test.Sequences();
    const absl::Status prepared = Prepare(step, test, sequences);
    ASSERT_TRUE(prepared.ok()) << prepared;
    const GpuMemory pool = ToDevice(test.pool()), q = ToDevice(test.q());
    std::vector<uint16_t> out(test.q().size(), 0xffff);
    const GpuMemory device_out = ToDevice(out);
    const absl::Status status =
        step.Attend({.pool = pool.as<void>(), .q = q.as<void>(), .stride = test.width()},
                    device_out.as<void>(), test.width());
    ASSERT_TRUE(status.ok()) << status;
    const absl::Status copied = gpu_->ToHost(out.data(), device_out.as<void>(),
                                             static_cast<int64_t>(out.size() * sizeof(uint16_t)));
    ASSERT_TRUE(copied.ok()) << copied;
    test.SetOut(std::move(out));
  }

  double AttendError(AttendCase::Options options) {
    AttendCase test(options);
    Attend(options, test);
    return test.Compare().relative;
  }

  std::unique_ptr<Gpu> gpu_;
};

// Sequences for all kernels at once: many queries and few, trees, windows that end anywhere.
const std::vector<AttendCase::Sequence> kMixed = {
    {1, 1, 0},           {200, 300, 5},       {33, 33, 0},   {1, 257, 390},
    {31, 150, 20, true}, {90, 300, 20, true}, {130, 130, 0}, {2, 128, 64}};

TEST_F(GpuStepTest, AttendsForEverySequenceOfABatch) {
  for (const int head_dim : {32, 64, 96, 128}) {
    EXPECT_LT(AttendError({.head_dim = head_dim, .num_heads = 2, .sequences = kMixed}), kTolerance)
        << head_dim;
  }
}

TEST_F(GpuStepTest, TakesFloat16) {
  EXPECT_LT(AttendError({.type = DType::kFloat16, .head_dim = 64, .sequences = kMixed}), 6e-4);
}

TEST_F(GpuStepTest, GivesTheSameBitsAgain) {
  const AttendCase::Options options{.head_dim = 64, .sequences = kMixed};
  AttendCase once(options), again(options);
  Attend(options, once);
  Attend(options, again);
  EXPECT_EQ(once.out(), again.out());
}

// What decoding does: the launches are recorded with one batch and repeated with others, which are
// smaller, longer, and lie in other pages.
TEST_F(GpuStepTest, ARecordedStepServesAnyBatchOfItsRoom) {
  const AttendCase::Options first{.head_dim = 64, .num_heads = 2, .sequences = {{1, 1, 0}}};
  GpuStep step = StepFor(first);
  GpuGraphs graphs(*gpu_);
  constexpr StepRoom kRoom{.num_rows = 4, .pages_per_row = 8};
  constexpr int64_t kMostBytes = 1 << 21;
  auto pool = gpu_->Allocate(kMostBytes), q = gpu_->Allocate(kMostBytes),
       out = gpu_->Allocate(kMostBytes);
  ASSERT_TRUE(pool.ok() && q.ok() && out.ok());
  const std::vector<std::vector<AttendCase::Sequence>> batches = {
      {{1, 1, 0}},
      {{1, 300, 17}, {1, 2, 0}, {1, 129, 40}},
      {{1, 700, 20}},
      {{1, 5, 128}, {1, 6, 129}, {1, 7, 1}, {1, 128, 0}}};
  for (const auto& sequences : batches) {
    AttendCase test({.head_dim = 64, .num_heads = 2, .sequences = sequences});
    const int64_t q_bytes = test.q().size() * sizeof(uint16_t);
    const int64_t pool_bytes = test.pool().size() * sizeof(uint16_t);
    ASSERT_LE(pool_bytes, kMostBytes);
    ASSERT_TRUE(gpu_->ToDevice(pool->as<void>(), test.pool().data(), pool_bytes).ok());
    ASSERT_TRUE(gpu_->ToDevice(q->as<void>(), test.q().data(), q_bytes).ok());
    const std::vector<AttendSequence> attends = test.Sequences();
    const absl::Status prepared = Prepare(step, test, attends, &kRoom);
    ASSERT_TRUE(prepared.ok()) << prepared;

    const absl::Status status = graphs.Run(kRoom.num_rows, [&] {
      return step.Attend({.pool = pool->as<void>(), .q = q->as<void>(), .stride = test.width()},
                         out->as<void>(), test.width());
    });

    ASSERT_TRUE(status.ok()) << status;
    std::vector<uint16_t> result(test.q().size());
    ASSERT_TRUE(gpu_->ToHost(result.data(), out->as<void>(), q_bytes).ok());
    test.SetOut(std::move(result));
    EXPECT_LT(test.Compare().relative, kTolerance) << sequences.size();
  }
}

TEST_F(GpuStepTest, NamesWhatIsWrong) {
  const AttendCase::Options options{.head_dim = 64, .sequences = {{1, 5, 0}, {2, 9, 3}}};
  const AttendCase test(options);
  GpuStep step = StepFor(options);
  const int32_t far_page[] = {99};
  const struct {
    const char* what;
    std::function<void(AttendSequence&)> change;
  } changes[] = {
      {"attends[1].window_pages: page 99 is outside [0, 3)",
       [&](AttendSequence& s) { s.slots.window_pages = far_page; }},
      {"attends[1].summary_pages: page 99 is outside [0, 3)",
       [&](AttendSequence& s) { s.slots.summary_pages = far_page; }},
      {"attends[1].window_pages: 129 slots in 1 pages of 128",
       [](AttendSequence& s) { s.slots.num_window = 129; }},
      {"attends[1]: 2 queries from row 0 on", [](AttendSequence& s) { s.query_begin = 0; }},
      {"attends[1]: 0 queries", [](AttendSequence& s) { s.num_queries = 0; }},
      {"attends: 2 queries for 3 rows", [](AttendSequence& s) { s.num_queries = 1; }},
  };
  for (const auto& [what, change] : changes) {
    std::vector<AttendSequence> sequences = test.Sequences();
    change(sequences[1]);
    const absl::Status status = Prepare(step, test, sequences);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  }
}

TEST_F(GpuStepTest, NamesWhatIsWrongWithALayer) {
  const AttendCase test({.head_dim = 64, .num_heads = 2, .sequences = {{1, 1, 0}}});
  GpuStep step = StepFor({.head_dim = 64, .num_heads = 2});
  ASSERT_TRUE(Prepare(step, test, test.Sequences()).ok());
  const GpuMemory memory = ToDevice(test.pool());
  char* const data = memory.as<char>();
  const StepLayer good{.pool = data, .q = data, .stride = 128};
  const auto error = [&](StepLayer layer, void* out, int64_t out_stride) {
    const absl::Status status = step.Attend(layer, out, out_stride);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error(good, data, 120),
              HasSubstr("out has a stride of 120; allowed: multiples of 8"));
  EXPECT_THAT(error(good, data + 8, 128), HasSubstr("out is at"));
  EXPECT_THAT(error({.pool = data, .q = data, .stride = 132}, data, 128),
              HasSubstr("q has a stride of 132"));
  EXPECT_THAT(error({.pool = nullptr, .q = data, .stride = 128}, data, 128),
              HasSubstr("pool is at 0"));
  EXPECT_THAT(std::string(step.Store(good).message()), HasSubstr("k is at 0"));
}

TEST_F(GpuStepTest, RefusesAnEmptyBatch) {
  GpuStep step = StepFor({.head_dim = 64});
  EXPECT_THAT(std::string(step.Prepare({}, 1).message()), HasSubstr("num_rows is 0"));
}

TEST_F(GpuStepTest, RefusesShapesThatNoKernelTakes) {
  const AttendCase test({.head_dim = 64, .sequences = {{1, 1, 0}}});
  GpuStep wrong_dim({.shape = {DType::kBFloat16, 80}, .num_heads = 1, .chunk = 16}, *gpu_);
  EXPECT_THAT(std::string(Prepare(wrong_dim, test, test.Sequences()).message()),
              HasSubstr("head_dim is 80"));
  GpuStep wrong_chunk({.shape = {DType::kBFloat16, 64}, .num_heads = 1, .chunk = 24}, *gpu_);
  EXPECT_THAT(std::string(Prepare(wrong_chunk, test, test.Sequences()).message()),
              HasSubstr("chunk is 24"));
}

}  // namespace
}  // namespace evaserve

#include "kernels/cuda/attend_narrow.cuh"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/testing/attend_case.h"

namespace evaserve {
namespace {

struct Launch {
  int num_blocks = 3;
  int planned_blocks = 3;  // for which the work was cut
  int min_slots = 32;
  uint64_t schedule = 1;
};

template <DType kType, int kHeadDim>
class Narrow {
 public:
  using Kernel = NarrowAttend<kType, kHeadDim>;

  Narrow(AttendCase::Options options, Launch launch) : test_(WithType(options)) {
    const CudaAttendArgs attend = test_.Args(Kernel::kRows);
    const std::vector<CudaSplit> splits = PlanSplits(
        test_.plan(), Kernel::kRows, {options.num_heads, launch.planned_blocks, launch.min_slots});
    num_splits_ = static_cast<int32_t>(splits.size());
    partials_.assign(splits.size() * options.num_heads * Kernel::kPartialFloats, NAN);
    arrived_.assign(static_cast<size_t>(attend.num_tiles) * options.num_heads, 0);
    const NarrowAttendArgs args{attend, splits.data(), &num_splits_, partials_.data(),
                                arrived_.data()};
    const absl::Status status = emulator::Launch(
        {launch.num_blocks, Kernel::kThreads, Kernel::kSharedBytes, launch.schedule},
        [&] { AttendNarrowKernel<kType, kHeadDim>(args); });
    EXPECT_TRUE(status.ok()) << status;
  }

  AttendCase::Error Compare() const { return test_.Compare(); }
  int num_splits() const { return num_splits_; }
  const std::vector<uint16_t>& out() const { return test_.out(); }
  bool CountersAreZero() const {
    return std::all_of(arrived_.begin(), arrived_.end(), [](int x) { return x == 0; });
  }

 private:
  static AttendCase::Options WithType(AttendCase::Options options) {
    options.type = kType;
    options.head_dim = kHeadDim;
    return options;
  }

  AttendCase test_;
  int32_t num_splits_ = 0;
  std::vector<float> partials_;
  std::vector<int32_t> arrived_;
};

constexpr double kBFloat16Tolerance = 4e-3, kFloat16Tolerance = 6e-4;
constexpr double kLseTolerance = 1e-4;  // float32: shows a slot too many or too few

const std::vector<AttendCase::Sequence> kDecoding = {{1, 1, 0},     {1, 130, 5},  {1, 16, 0},
                                                     {1, 200, 128}, {3, 128, 64}, {1, 257, 390}};

TEST(AttendNarrowTest, AgreesWithTheReferenceForEveryHeadDim) {
  EXPECT_LT((Narrow<DType::kBFloat16, 32>({.num_heads = 2, .sequences = kDecoding}, {})
                 .Compare()
                 .relative),
            kBFloat16Tolerance);
  EXPECT_LT((Narrow<DType::kBFloat16, 64>({.sequences = kDecoding}, {}).Compare().relative),
            kBFloat16Tolerance);
  EXPECT_LT((Narrow<DType::kBFloat16, 96>({.sequences = kDecoding}, {}).Compare().relative),
            kBFloat16Tolerance);
  EXPECT_LT((Narrow<DType::kBFloat16, 128>({.sequences = kDecoding}, {}).Compare().relative),
            kBFloat16Tolerance);
}

TEST(AttendNarrowTest, Float16IsFiner) {
  EXPECT_LT((Narrow<DType::kFloat16, 64>({.sequences = kDecoding}, {}).Compare().relative),
            kFloat16Tolerance);
}

TEST(AttendNarrowTest, ATileWithOneSplitNeedsNoPartialResults) {
  const Narrow<DType::kBFloat16, 64> narrow({.sequences = kDecoding}, {.min_slots = 1024});
  EXPECT_EQ(narrow.num_splits(), static_cast<int>(kDecoding.size()));
  EXPECT_LT(narrow.Compare().relative, kBFloat16Tolerance);
}

TEST(AttendNarrowTest, ABlockTakesOneSplitAfterTheOther) {
  EXPECT_LT((Narrow<DType::kBFloat16, 64>({.sequences = kDecoding},
                                          {.num_blocks = 2, .planned_blocks = 40})
                 .Compare()
                 .relative),
            kBFloat16Tolerance);
}

TEST(AttendNarrowTest, GivesTheNormaliser) {
  EXPECT_LT((Narrow<DType::kBFloat16, 64>({.sequences = kDecoding}, {}).Compare().lse),
            kLseTolerance);
}

TEST(AttendNarrowTest, SeesAncestorsOnlyInATree) {
  const AttendCase::Error error =
      Narrow<DType::kBFloat16, 64>(
          {.sequences = {{31, 150, 20, true}, {40, 150, 0, true}, {7, 7, 0, true}, {1, 9, 0}}}, {})
          .Compare();
  EXPECT_LT(error.relative, kBFloat16Tolerance);
  EXPECT_LT(error.lse, kLseTolerance);
}

TEST(AttendNarrowTest, HoldsLargeLogits) {
  EXPECT_LT((Narrow<DType::kBFloat16, 64>({.sequences = kDecoding, .spread = 8.f}, {})
                 .Compare()
                 .relative),
            kBFloat16Tolerance);
}

TEST(AttendNarrowTest, TheScheduleDoesNotChangeABit) {
  const AttendCase::Options options{.sequences = kDecoding};
  const Narrow<DType::kBFloat16, 64> once(options, {.schedule = 0}),
      again(options, {.schedule = 9});
  EXPECT_EQ(once.out(), again.out());
}

TEST(AttendNarrowTest, LeavesItsCountersAsTheyWere) {
  EXPECT_TRUE((Narrow<DType::kBFloat16, 64>({.sequences = kDecoding}, {}).CountersAreZero()));
}

}  // namespace
}  // namespace evaserve

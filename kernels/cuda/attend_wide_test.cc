#include "kernels/cuda/attend_wide.cuh"

#include <gtest/gtest.h>

#include "kernels/cuda/testing/attend_case.h"

namespace evaserve {
namespace {

template <DType kType, int kHeadDim>
AttendCase::Error Check(AttendCase::Options options, int num_blocks, uint64_t schedule) {
  using Shape = WideShape<kHeadDim>;
  using Image = typename Shape::Image;
  options.type = kType;
  options.head_dim = kHeadDim;
  AttendCase test(options);
  const std::vector<char> zeros(Image::kBlockBytes);
  const WideAttendArgs args{test.Args(Shape::kRows),
                            {test.q().data(), test.width(), test.num_tokens(), test.width(),
                             Image::kBlockColumns, Shape::kRows},
                            zeros.data()};
  const absl::Status status =
      emulator::Launch({num_blocks, Shape::kThreads, Shape::kSharedBytes, schedule},
                       [&] { AttendWideKernel<kType, kHeadDim>(args); });
  EXPECT_TRUE(status.ok()) << status;
  return test.Compare();
}

constexpr double kBFloat16Tolerance = 4e-3, kFloat16Tolerance = 6e-4;
constexpr double kLseTolerance = 1e-4;  // float32: shows a slot too many or too few

const std::vector<AttendCase::Sequence> kRagged = {
    {1, 1, 0}, {200, 300, 5}, {130, 130, 0}, {128, 256, 128}, {3, 128, 64}};

TEST(AttendWideTest, AgreesWithTheReferenceForEveryHeadDim) {
  EXPECT_LT((Check<DType::kBFloat16, 32>({.num_heads = 2, .sequences = kRagged}, 3, 0).relative),
            kBFloat16Tolerance);
  EXPECT_LT((Check<DType::kBFloat16, 64>({.sequences = kRagged}, 2, 1).relative),
            kBFloat16Tolerance);
  EXPECT_LT((Check<DType::kBFloat16, 96>({.sequences = kRagged}, 2, 2).relative),
            kBFloat16Tolerance);
  EXPECT_LT((Check<DType::kBFloat16, 128>({.sequences = kRagged}, 2, 3).relative),
            kBFloat16Tolerance);
}

TEST(AttendWideTest, ABlockTakesOneTileAfterTheOther) {
  EXPECT_LT((Check<DType::kBFloat16, 64>({.num_heads = 2, .sequences = kRagged}, 1, 4).relative),
            kBFloat16Tolerance);
}

TEST(AttendWideTest, Float16IsFiner) {
  EXPECT_LT((Check<DType::kFloat16, 64>({.sequences = kRagged}, 2, 5).relative), kFloat16Tolerance);
}

TEST(AttendWideTest, GivesTheNormaliser) {
  EXPECT_LT((Check<DType::kBFloat16, 64>({.sequences = kRagged}, 2, 6).lse), kLseTolerance);
}

TEST(AttendWideTest, SeesAncestorsOnlyInATree) {
  const AttendCase::Error error = Check<DType::kBFloat16, 64>(
      {.sequences = {{90, 300, 20, true}, {150, 150, 0, true}, {5, 9, 0}}}, 2, 7);
  EXPECT_LT(error.relative, kBFloat16Tolerance);
  EXPECT_LT(error.lse, kLseTolerance);
}

TEST(AttendWideTest, HoldsLargeLogits) {
  EXPECT_LT((Check<DType::kBFloat16, 64>({.sequences = kRagged, .spread = 8.f}, 2, 8).relative),
            kBFloat16Tolerance);
}

}  // namespace
}  // namespace evaserve

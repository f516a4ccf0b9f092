#include "kernels/cuda/attend_portable.cuh"

#include <gtest/gtest.h>

#include "kernels/cuda/testing/attend_case.h"

namespace evaserve {
namespace {

template <DType kType, int kHeadDim>
AttendCase::Error Check(AttendCase::Options options, uint64_t schedule) {
  using Kernel = PortableAttend<kType, kHeadDim>;
  options.type = kType;
  options.head_dim = kHeadDim;
  AttendCase test(options);
  const CudaAttendArgs args = test.Args(Kernel::kRows);
  const absl::Status status = emulator::Launch(
      {args.num_tiles * args.num_heads, Kernel::kThreads, Kernel::kSharedBytes, schedule},
      [&] { AttendPortableKernel<kType, kHeadDim>(args); });
  EXPECT_TRUE(status.ok()) << status;
  return test.Compare();
}

// 3e-3: bfloat16 weights and results; float16 is eight times as fine.
constexpr double kBFloat16Tolerance = 4e-3, kFloat16Tolerance = 6e-4;
constexpr double kLseTolerance = 1e-4;  // float32: shows a slot too many or too few

const std::vector<AttendCase::Sequence> kRagged = {{1, 1, 0},      {1, 130, 5},  {70, 70, 0},
                                                   {64, 200, 128}, {3, 128, 64}, {100, 257, 190}};

TEST(AttendPortableTest, AgreesWithTheReferenceForEveryHeadDim) {
  EXPECT_LT((Check<DType::kBFloat16, 32>({.num_heads = 2, .sequences = kRagged}, 0).relative),
            kBFloat16Tolerance);
  EXPECT_LT((Check<DType::kBFloat16, 64>({.num_heads = 2, .sequences = kRagged}, 1).relative),
            kBFloat16Tolerance);
  EXPECT_LT((Check<DType::kBFloat16, 96>({.sequences = kRagged}, 2).relative), kBFloat16Tolerance);
  EXPECT_LT((Check<DType::kBFloat16, 128>({.sequences = kRagged}, 3).relative), kBFloat16Tolerance);
}

TEST(AttendPortableTest, Float16IsFiner) {
  EXPECT_LT((Check<DType::kFloat16, 64>({.sequences = kRagged}, 4).relative), kFloat16Tolerance);
}

TEST(AttendPortableTest, GivesTheNormaliser) {
  EXPECT_LT((Check<DType::kBFloat16, 64>({.sequences = kRagged}, 5).lse), kLseTolerance);
}

TEST(AttendPortableTest, SeesAncestorsOnlyInATree) {
  const AttendCase::Error error = Check<DType::kBFloat16, 64>(
      {.sequences = {{40, 150, 20, true}, {7, 7, 0, true}, {5, 9, 0}}}, 6);
  EXPECT_LT(error.relative, kBFloat16Tolerance);
  EXPECT_LT(error.lse, kLseTolerance);
}

TEST(AttendPortableTest, HoldsLargeLogits) {
  EXPECT_LT((Check<DType::kBFloat16, 64>({.sequences = kRagged, .spread = 8.f}, 7).relative),
            kBFloat16Tolerance);
}

}  // namespace
}  // namespace evaserve

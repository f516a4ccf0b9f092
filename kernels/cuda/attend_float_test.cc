#include "kernels/cuda/attend_float.cuh"

#include <gtest/gtest.h>

#include "kernels/cuda/testing/attend_case.h"

namespace evaserve {
namespace {

template <int kHeadDim>
AttendCase CaseOf(AttendCase::Options options) {
  options.type = DType::kFloat32;
  options.head_dim = kHeadDim;
  return AttendCase(options);
}

template <int kHeadDim>
void Launch(const CudaAttendArgs& args, uint64_t schedule) {
  using Kernel = FloatAttend<kHeadDim>;
  const absl::Status status = emulator::Launch(
      {args.num_tiles * args.num_heads, Kernel::kThreads, Kernel::kSharedBytes, schedule},
      [&] { AttendFloatKernel<kHeadDim>(args); });
  EXPECT_TRUE(status.ok()) << status;
}

template <int kHeadDim>
AttendCase::Error Check(const AttendCase::Options& options, uint64_t schedule) {
  AttendCase test = CaseOf<kHeadDim>(options);
  Launch<kHeadDim>(test.Args(FloatAttend<kHeadDim>::kRows), schedule);
  return test.Compare();
}

// A rounding of float32 is 6e-8; logits and sums have up to some hundred in a row.
constexpr double kTolerance = 2e-6, kLseTolerance = 1e-5;

const std::vector<AttendCase::Sequence> kRagged = {{1, 1, 0},      {1, 130, 5},  {70, 70, 0},
                                                   {64, 200, 128}, {3, 128, 64}, {100, 257, 190}};

TEST(AttendFloatTest, AgreesWithTheReferenceForEveryHeadDim) {
  EXPECT_LT((Check<32>({.num_heads = 2, .sequences = kRagged}, 0).relative), kTolerance);
  EXPECT_LT((Check<64>({.num_heads = 2, .sequences = kRagged}, 1).relative), kTolerance);
  EXPECT_LT((Check<96>({.sequences = kRagged}, 2).relative), kTolerance);
  EXPECT_LT((Check<128>({.sequences = kRagged}, 3).relative), kTolerance);
}

TEST(AttendFloatTest, GivesTheNormaliser) {
  EXPECT_LT((Check<64>({.sequences = kRagged}, 4).lse), kLseTolerance);
}

TEST(AttendFloatTest, SeesAncestorsOnlyInATree) {
  const AttendCase::Error error =
      Check<64>({.sequences = {{90, 300, 20, true}, {7, 7, 0, true}, {5, 9, 0}}}, 5);
  EXPECT_LT(error.relative, kTolerance);
  EXPECT_LT(error.lse, kLseTolerance);
}

TEST(AttendFloatTest, HoldsLargeLogits) {
  EXPECT_LT((Check<64>({.sequences = kRagged, .spread = 8.f}, 6).relative), kTolerance);
}

TEST(AttendFloatTest, TheScheduleDoesNotChangeABit) {
  AttendCase test = CaseOf<64>({.num_heads = 2, .sequences = kRagged});
  Launch<64>(test.Args(FloatAttend<64>::kRows), 0);
  const std::vector<uint16_t> once = test.out();
  Launch<64>(test.Args(FloatAttend<64>::kRows), 9);
  EXPECT_EQ(test.out(), once);
}

// As if prefill were decoding.
TEST(AttendFloatTest, AQueryByItselfGetsTheSameBits) {
  AttendCase test = CaseOf<64>({.sequences = kRagged});
  Launch<64>(test.Args(FloatAttend<64>::kRows), 7);
  const std::vector<uint16_t> together = test.out();

  CudaAttendArgs args = test.Args(FloatAttend<64>::kRows);
  std::vector<CudaSequence> sequences;
  std::vector<CudaTile> tiles;
  for (const CudaSequence& all : test.plan().sequences) {
    for (int row = 0; row < all.num_queries; ++row) {
      tiles.push_back({static_cast<int32_t>(sequences.size()), 0});
      CudaSequence& one = sequences.emplace_back(all);
      one.query_begin += row;
      one.num_window -= all.num_queries - 1 - row;
      one.num_queries = 1;
    }
  }
  args.sequences = sequences.data();
  args.tiles = tiles.data();
  args.num_tiles = static_cast<int>(tiles.size());
  Launch<64>(args, 8);
  EXPECT_EQ(test.out(), together);
}

}  // namespace
}  // namespace evaserve

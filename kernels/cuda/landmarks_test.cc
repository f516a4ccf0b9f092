#include "kernels/cuda/landmarks.cuh"

#include <gtest/gtest.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/testing/window_case.h"

namespace evaserve {
namespace {

// One rounding to the type; sums are float32, and a norm of a small mean enlarges their error.
constexpr double kFloat32Tolerance = 5e-6, kBFloat16Tolerance = 3e-3, kFloat16Tolerance = 5e-4;

template <DType kType>
void RunKernels(WindowCase& test, uint64_t schedule) {
  const WindowBatch batch(test.options(), test.plan());
  const auto args = batch.Args(test.landmarks(), batch.bytes().data());
  ASSERT_TRUE(args.ok()) << args.status();
  EmulatedStream stream{schedule};
  const std::string error = DispatchHeadRoom(args->head_dim, [&](auto dim) {
    using Kernel = Landmarks<kType, decltype(dim)::value>;
    return LaunchKernel(
        LandmarksKernel<kType, decltype(dim)::value>,
        {int64_t{args->num_groups} * args->num_heads, Kernel::kThreads, Kernel::kSharedBytes},
        *args, &stream);
  });
  EXPECT_EQ(error, "");
}

template <DType kType>
double ErrorOf(WindowCase::Options options, uint64_t schedule = 2) {
  options.type = kType;
  WindowCase test(options);
  RunKernels<kType>(test, schedule);
  return test.LandmarksError();
}

RegionShape Sequence(int tokens, int window, int num_landmarks, bool overlap) {
  return {1, tokens, window, num_landmarks, overlap, /*is_2d=*/false};
}
RegionShape Map(int height, int width, int window, int num_landmarks, bool overlap) {
  return {height, width, window, num_landmarks, overlap, /*is_2d=*/true};
}

// Chunks of 1 to 100 places, with padding, with margins that leave the map, without tokens.
const std::vector<RegionShape> kMixed = {Sequence(5, 16, 4, false),   Sequence(61, 8, 8, true),
                                         Sequence(130, 32, 2, false), Sequence(30, 2, 15, true),
                                         Map(14, 14, 7, 49, false),   Map(8, 12, 4, 5, true)};

TEST(CudaLandmarksTest, AgreeWithTheReferenceForEveryHeadDim) {
  for (const int head_dim : {8, 24, 32, 40, 64, 96, 128}) {
    SCOPED_TRACE(head_dim);
    const WindowCase::Options options{.head_dim = head_dim, .items = kMixed};
    EXPECT_LT(ErrorOf<DType::kFloat32>(options), kFloat32Tolerance);
    EXPECT_LT(ErrorOf<DType::kBFloat16>(options), kBFloat16Tolerance);
  }
}

TEST(CudaLandmarksTest, Float16IsFiner) {
  EXPECT_LT(ErrorOf<DType::kFloat16>({.items = kMixed}), kFloat16Tolerance);
}

TEST(CudaLandmarksTest, AgreeWithTheReferenceInEveryForm) {
  for (const bool has_map_q : {true, false}) {
    for (const bool has_norm : {true, false}) {
      SCOPED_TRACE(testing::Message() << "map_q " << has_map_q << ", norm " << has_norm);
      EXPECT_LT(
          ErrorOf<DType::kFloat32>(
              {.head_dim = 32, .items = kMixed, .has_map_q = has_map_q, .has_norm = has_norm}),
          kFloat32Tolerance);
    }
  }
}

// Keys of length 100: logits of some thousand, of which one key has all the weight.
TEST(CudaLandmarksTest, HoldLargeLogits) {
  EXPECT_LT(ErrorOf<DType::kBFloat16>({.items = kMixed, .spread = 12.f}), kBFloat16Tolerance);
}

TEST(CudaLandmarksTest, AChunkWithoutTokensHasTheMapOfZeroAndNoValue) {
  WindowCase test({.type = DType::kFloat32,
                   .head_dim = 32,
                   .num_heads = 1,
                   .items = {Sequence(5, 16, 4, false)},
                   .has_norm = false});
  RunKernels<DType::kFloat32>(test, 3);
  for (int d = 0; d < 32; ++d) {
    EXPECT_EQ(test.Load(test.k_bar, 3 * 32 + d), test.map_k.bias[d]) << d;
    EXPECT_EQ(test.Load(test.beta, 3 * 32 + d), 0.f) << d;
  }
}

TEST(CudaLandmarksTest, ANeighbourAndTheScheduleDoNotChangeABit) {
  WindowCase together({.items = kMixed}), alone({.items = {kMixed[0]}});
  RunKernels<DType::kBFloat16>(together, 4);
  RunKernels<DType::kBFloat16>(alone, 0);
  ASSERT_LT(alone.k_bar.size(), together.k_bar.size());
  together.k_bar.resize(alone.k_bar.size());
  together.beta.resize(alone.beta.size());
  EXPECT_EQ(together.k_bar, alone.k_bar);
  EXPECT_EQ(together.beta, alone.beta);
}

}  // namespace
}  // namespace evaserve

#include "kernels/cuda/window_attend.cuh"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/cuda/landmarks.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/testing/window_case.h"
#include "kernels/cuda/window_attend_float.cuh"

namespace evaserve {
namespace {

template <DType kType>
void LaunchLandmarks(const LandmarksArgs& args, EmulatedStream& stream) {
  const std::string error = DispatchHeadRoom(args.head_dim, [&](auto dim) {
    using Kernel = Landmarks<kType, decltype(dim)::value>;
    return LaunchKernel(
        LandmarksKernel<kType, decltype(dim)::value>,
        {int64_t{args.num_groups} * args.num_heads, Kernel::kThreads, Kernel::kSharedBytes}, args,
        &stream);
  });
  EXPECT_EQ(error, "");
}

template <DType kType>
void LaunchAttend(const WindowAttendArgs& args, EmulatedStream& stream) {
  const int64_t num_blocks = int64_t{args.num_tiles} * args.num_heads;
  std::string error;
  if constexpr (kType == DType::kFloat32) {
    using Kernel = FloatWindowAttend;
    error = LaunchKernel(WindowAttendFloatKernel,
                         {num_blocks, Kernel::kThreads, Kernel::kSharedBytes}, args, &stream);
  } else {
    error = DispatchHeadRoom(args.head_dim, [&](auto dim) {
      using Kernel = WindowAttend<kType, decltype(dim)::value>;
      return LaunchKernel(WindowAttendKernel<kType, decltype(dim)::value>,
                          {num_blocks, args.tile_rows * 2, Kernel::kSharedBytes}, args, &stream);
    });
  }
  EXPECT_EQ(error, "");
}

template <DType kType>
void RunKernels(const WindowPlan& plan, const LandmarksLayer& landmarks, const WindowLayer& attend,
                const WindowOptions& options, uint64_t schedule) {
  const WindowBatch batch(options, plan);
  const auto landmarks_args = batch.Args(landmarks, batch.bytes().data());
  const auto attend_args = batch.Args(attend, batch.bytes().data());
  ASSERT_TRUE(landmarks_args.ok()) << landmarks_args.status();
  ASSERT_TRUE(attend_args.ok()) << attend_args.status();
  EmulatedStream stream{schedule};
  LaunchLandmarks<kType>(*landmarks_args, stream);
  LaunchAttend<kType>(*attend_args, stream);
}

template <DType kType>
void RunKernels(WindowCase& test, uint64_t schedule) {
  RunKernels<kType>(test.plan(), test.landmarks(), test.attend(), test.options(), schedule);
}

template <DType kType>
struct TypeOf {
  static constexpr DType kValue = kType;
  // Weights and results are rounded to the type. In float32 logits and sums have up to some hundred
  // roundings of 6e-8 in a row.
  static constexpr double kTolerance = kType == DType::kFloat32    ? 2e-6
                                       : kType == DType::kBFloat16 ? 4e-3
                                                                   : 6e-4;
  // Of float32 sums: shows a column too many or too few.
  static constexpr double kLseTolerance = 1e-4;
  // Causal references have landmarks that are not rounded.
  static constexpr double kCausalTolerance = kType == DType::kFloat32    ? 2e-6
                                             : kType == DType::kBFloat16 ? 1e-2
                                                                         : 2e-3;
};

template <typename Type>
class CudaWindowAttendTest : public testing::Test {
 protected:
  static void ExpectAgrees(WindowCase::Options options, uint64_t schedule = 2) {
    options.type = Type::kValue;
    WindowCase test(options);
    RunKernels<Type::kValue>(test, schedule);
    const WindowCase::Error error = test.AttendError();
    EXPECT_LT(error.relative, Type::kTolerance);
    EXPECT_LT(error.lse, Type::kLseTolerance * options.spread * options.spread);
    EXPECT_FALSE(test.GapsAreWritten());
  }
};

struct TypeName {
  template <typename Type>
  static std::string GetName(int) {
    return std::string(Name(Type::kValue));
  }
};
using Types =
    testing::Types<TypeOf<DType::kFloat32>, TypeOf<DType::kBFloat16>, TypeOf<DType::kFloat16>>;
TYPED_TEST_SUITE(CudaWindowAttendTest, Types, TypeName);

RegionShape Sequence(int tokens, int window, int num_landmarks, bool overlap) {
  return {1, tokens, window, num_landmarks, overlap, /*is_2d=*/false};
}
RegionShape Map(int height, int width, int window, int num_landmarks, bool overlap) {
  return {height, width, window, num_landmarks, overlap, /*is_2d=*/true};
}

// Windows of 1 to 160 queries and 1 to 320 keys, 1 to 64 landmarks, padding, and margins outside:
// in the last sequence the first 80 keys of a window.
const std::vector<RegionShape> kMixed = {
    Sequence(1, 1, 1, false),  Sequence(5, 16, 4, false),  Sequence(10, 2, 5, false),
    Sequence(61, 8, 8, true),  Sequence(96, 24, 48, true), Sequence(130, 32, 8, true),
    Map(14, 14, 7, 49, false), Map(14, 7, 7, 32, true),    Map(12, 8, 4, 6, false),
    Map(8, 8, 4, 64, true),    Sequence(200, 160, 4, true)};

TYPED_TEST(CudaWindowAttendTest, AgreesWithTheReferenceOnEveryShape) {
  this->ExpectAgrees({.head_dim = 32, .items = kMixed}, 0);
  this->ExpectAgrees({.head_dim = 64, .items = kMixed}, 1);
}

TYPED_TEST(CudaWindowAttendTest, FillsOtherHeadDimsWithZeros) {
  for (const int head_dim : {8, 24, 48, 96, 128}) {
    SCOPED_TRACE(head_dim);
    this->ExpectAgrees({.head_dim = head_dim, .items = {kMixed[3], kMixed[6]}});
  }
}

TYPED_TEST(CudaWindowAttendTest, AddsTheBiasOfEachHeadToItsKeys) {
  for (const RegionShape& shape : kMixed) {
    SCOPED_TRACE(testing::Message() << shape.height << " x " << shape.width);
    this->ExpectAgrees({.head_dim = 32, .num_heads = 3, .items = {shape}, .has_bias = true});
  }
}

TYPED_TEST(CudaWindowAttendTest, HoldsLargeLogits) {
  this->ExpectAgrees({.items = {kMixed[3], kMixed[6], kMixed[10]}, .spread = 8.f});
}

TYPED_TEST(CudaWindowAttendTest, ANeighbourAndTheScheduleDoNotChangeABit) {
  WindowCase together({.type = TypeParam::kValue, .items = kMixed}),
      alone({.type = TypeParam::kValue, .items = {kMixed.begin(), kMixed.begin() + 4}});
  RunKernels<TypeParam::kValue>(together, 0);
  RunKernels<TypeParam::kValue>(alone, 9);
  ASSERT_LT(alone.out.size(), together.out.size());
  together.out.resize(alone.out.size());
  EXPECT_EQ(together.out, alone.out);
}

// Of causal EVA: windows with and without the one before, chunks of one token to a window.
std::vector<CausalEvaShape> CausalShapes() {
  return {{.window = 16, .chunk = 4},
          {.window = 16, .chunk = 8, .overlap = true},
          {.window = 8, .chunk = 1},
          {.window = 12, .chunk = 12, .overlap = true},
          {.window = 96, .chunk = 8}};
}
const std::vector<int> kLengths = {45, 1, 3, 64, 101};

TYPED_TEST(CudaWindowAttendTest, CausalAgreesWithTheReference) {
  for (const CausalEvaShape& shape : CausalShapes()) {
    for (const bool has_bias : {false, true}) {
      SCOPED_TRACE(testing::Message() << "window " << shape.window << ", chunk " << shape.chunk);
      WindowCase test({.type = TypeParam::kValue,
                       .head_dim = 32,
                       .causal = shape,
                       .lengths = kLengths,
                       .has_bias = has_bias});
      RunKernels<TypeParam::kValue>(test, 3);
      const WindowCase::Error error = test.AttendError();
      EXPECT_LT(error.relative, TypeParam::kCausalTolerance);
      EXPECT_LT(error.lse, 10 * TypeParam::kCausalTolerance);
      EXPECT_FALSE(test.GapsAreWritten());
    }
  }
}

// The states of a case's sequences on the device, full of NaN at first, and the tokens' way there.
template <DType kType>
class Stepper {
 public:
  Stepper(WindowCase& test, const CausalEvaShape& shape, const std::vector<int>& lengths)
      : test_(test), shape_(shape), lengths_(lengths), row_words_(test.stride() * kWords) {
    shape_.num_heads = test.options().num_heads;
    shape_.head_dim = test.options().shape.head_dim;
    const int64_t most = *std::max_element(lengths.begin(), lengths.end());
    max_chunks_ = static_cast<int>(most / shape.chunk + 1);
    state_.assign(std::ssize(lengths) * shape_.num_keys() * row_words_, 0xffff);
    k_bar_.assign(std::ssize(lengths) * max_chunks_ * test.width() * kWords, 0xffff);
    beta_ = k_bar_;
  }

  // The next tokens of each sequence, up to so many and not across the end of its window.
  void Run(const std::vector<int>& pieces) {
    std::vector<int> done(lengths_.size(), 0);
    for (size_t i = 0;; ++i) {
      std::vector<CausalStep> steps;
      int row = 0;
      for (size_t s = 0; s < done.size(); ++s) {
        const int left = std::min(lengths_[s] - done[s], shape_.window - done[s] % shape_.window);
        const int count = std::min(pieces[(i + s) % pieces.size()], left);
        if (count > 0) {
          steps.push_back({done[s], row + done[s], count, int64_t(s) * shape_.num_keys(),
                           int64_t(s) * max_chunks_, max_chunks_});
          done[s] += count;
        }
        row += lengths_[s];
      }
      if (steps.empty()) return;
      RunSteps(steps, i);
    }
  }

 private:
  static constexpr int kWords = SizeOf(kType) / 2;

  void RunSteps(const std::vector<CausalStep>& steps, uint64_t schedule) {
    const absl::StatusOr<WindowPlan> plan = PlanSteps(test_.options(), shape_, steps);
    ASSERT_TRUE(plan.ok()) << plan.status();
    auto to = plan->state_rows.begin();
    for (const CausalStep& step : steps) {
      for (int i = 0; i < step.num_tokens; ++i) {
        std::copy_n(&test_.qkv[int64_t{step.row_begin + i} * row_words_], row_words_,
                    &state_[*to++ * row_words_]);
      }
    }
    const int64_t part = test_.width() * kWords;
    LandmarksLayer landmarks = test_.landmarks();
    WindowLayer attend = test_.attend();
    landmarks.q = state_.data();
    landmarks.k = attend.k = state_.data() + part;
    landmarks.v = attend.v = state_.data() + 2 * part;
    landmarks.k_bar = k_bar_.data();
    landmarks.beta = beta_.data();
    attend.k_bar = k_bar_.data();
    attend.beta = beta_.data();
    evaserve::RunKernels<kType>(*plan, landmarks, attend, test_.options(), schedule);
  }

  WindowCase& test_;
  CausalEvaShape shape_;
  const std::vector<int> lengths_;
  const int64_t row_words_;
  int max_chunks_ = 0;
  std::vector<uint16_t> state_, k_bar_, beta_;
};

// Decoding, and prefill in pieces: states of NaN, of which nothing is read that was not written.
TYPED_TEST(CudaWindowAttendTest, HowACausalSequenceIsCutDoesNotChangeABit) {
  for (const CausalEvaShape& shape : CausalShapes()) {
    WindowCase test({.type = TypeParam::kValue,
                     .head_dim = 32,
                     .causal = shape,
                     .lengths = {37, 3, 50},
                     .has_bias = true});
    RunKernels<TypeParam::kValue>(test, 4);
    const std::vector<uint16_t> whole = test.out;
    for (const std::vector<int>& pieces : {std::vector{1}, std::vector{5, 90, 7}}) {
      SCOPED_TRACE(testing::Message() << "window " << shape.window << ", chunk " << shape.chunk
                                      << ", pieces of " << pieces[0]);
      std::fill(test.out.begin(), test.out.end(), 0xffff);
      Stepper<TypeParam::kValue>(test, shape, {37, 3, 50}).Run(pieces);
      EXPECT_TRUE(test.out == whole);
    }
  }
}

}  // namespace
}  // namespace evaserve

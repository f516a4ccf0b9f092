#include "kernels/cuda/fused.cuh"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/testing/elements.h"

namespace evaserve {
namespace {

constexpr int kRows = 3;

// Fewer threads than a warp, more than one, all of them twice.
constexpr int kSizes[] = {8, 264, 4096};

// Rounding moves a number by half a unit in the last place at most: 2^-8 or 2^-11 of itself. The
// rest is for float32: an exponential magnifies a rounding of 6e-8 by its exponent, here up to 20.
// Below its normal numbers float16 has steps of 6e-8.
template <DType kType>
constexpr double kTolerance = kType == DType::kFloat32    ? 3e-6
                              : kType == DType::kBFloat16 ? 4e-3
                                                          : 5e-4;
constexpr double kSmallest = 3e-8;

template <DType kType>
void ExpectRounded(Bits<kType> got, double want) {
  EXPECT_NEAR(FloatFromBits<kType>(got), want, kTolerance<kType> * std::fabs(want) + kSmallest);
}

void Launch(int num_blocks, absl::FunctionRef<void()> kernel) {
  const absl::Status status =
      emulator::Launch({num_blocks, kFusedThreads, kFusedThreads * 4 / 32, 1}, kernel);
  EXPECT_TRUE(status.ok()) << status;
}

// Rows of normal numbers, `stride` apart, with NaN between them.
std::vector<float> RandomRows(int size, int64_t stride, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.f, spread);
  std::vector<float> rows(kRows * stride, std::numeric_limits<float>::quiet_NaN());
  for (int row = 0; row < kRows; ++row) {
    for (int i = 0; i < size; ++i) rows[row * stride + i] = normal(random);
  }
  return rows;
}

template <DType kType>
std::vector<Bits<kType>> ToBits(const std::vector<float>& from) {
  std::vector<Bits<kType>> to;
  for (const float x : from) to.push_back(BitsFromFloat<kType>(x));
  return to;
}

template <DType kDType>
struct OfType {
  static constexpr DType kType = kDType;
};
using Types =
    testing::Types<OfType<DType::kFloat32>, OfType<DType::kBFloat16>, OfType<DType::kFloat16>>;

struct TypeName {
  template <typename Type>
  static std::string GetName(int) {
    return std::string(Name(Type::kType));
  }
};

enum class NormMode { kSeparate, kInPlace, kNothingAdded };

// Every stride is another one.
template <DType kType>
class NormCase {
 public:
  NormCase(int size, NormMode mode)
      : size_(size),
        mode_(mode),
        x_(ToBits<kType>(RandomRows(size, x_stride(), 2.f, 1))),
        residual_(RandomRows(size, residual_stride(), 3.f, 2)),
        weight_(RandomRows(size, size, 1.f, 3)),
        y_(mode == NormMode::kInPlace
               ? x_
               : std::vector<Bits<kType>>(kRows * (size + 24), kPoison<kType>)) {}

  void Run() {
    residual_after_ = residual_;
    y_after_ = y_;
    const bool in_place = mode_ == NormMode::kInPlace;
    AddRmsNormArgs args;
    args.x = in_place ? y_after_.data() : mode_ == NormMode::kSeparate ? x_.data() : nullptr;
    args.x_stride = x_stride();
    args.residual = residual_after_.data();
    args.residual_stride = residual_stride();
    args.weight = weight_.data();
    args.y = y_after_.data();
    args.y_stride = y_stride();
    args.size = size_;
    args.eps = kEps;
    Launch(kRows, [&] { AddRmsNormKernel<kType>(args); });
  }

  // The residual to the bit, and nothing between rows.
  void Check() const {
    for (int row = 0; row < kRows; ++row) {
      CheckResidual(row);
      CheckResult(row);
      if (testing::Test::HasFailure()) return;
    }
  }

 private:
  static constexpr float kEps = 0.1f;  // so large that it counts

  int64_t x_stride() const { return size_ + 8; }
  int64_t residual_stride() const { return size_ + 16; }
  int64_t y_stride() const { return mode_ == NormMode::kInPlace ? x_stride() : size_ + 24; }

  void CheckResidual(int row) const {
    for (int i = 0; i < residual_stride(); ++i) {
      const int64_t at = row * residual_stride() + i;
      const bool is_added = i < size_ && mode_ != NormMode::kNothingAdded;
      const float want =
          is_added ? residual_[at] + FloatFromBits<kType>(x_[row * x_stride() + i]) : residual_[at];
      EXPECT_EQ(std::bit_cast<uint32_t>(residual_after_[at]), std::bit_cast<uint32_t>(want))
          << "row " << row << ", " << i;
    }
  }
  void CheckResult(int row) const {
    const float* const sums = &residual_after_[row * residual_stride()];
    double squares = 0.;
    for (int i = 0; i < size_; ++i) squares += double{sums[i]} * sums[i];
    const double norm = std::sqrt(squares / size_ + kEps);
    for (int i = 0; i < y_stride(); ++i) {
      SCOPED_TRACE(testing::Message() << "row " << row << ", " << i);
      const int64_t at = row * y_stride() + i;
      if (i < size_) {
        ExpectRounded<kType>(y_after_[at], sums[i] / norm * weight_[i]);
      } else {
        EXPECT_EQ(y_after_[at], y_[at]);
      }
    }
  }

  const int size_;
  const NormMode mode_;
  const std::vector<Bits<kType>> x_;
  const std::vector<float> residual_, weight_;
  const std::vector<Bits<kType>> y_;
  std::vector<float> residual_after_;
  std::vector<Bits<kType>> y_after_;
};

template <typename Type>
class AddRmsNormTest : public testing::Test {
 protected:
  static void ExpectFollowsItsFormula(NormMode mode) {
    for (const int size : kSizes) {
      SCOPED_TRACE(testing::Message() << "size " << size);
      NormCase<Type::kType> norm(size, mode);
      norm.Run();
      norm.Check();
    }
  }
};
TYPED_TEST_SUITE(AddRmsNormTest, Types, TypeName);

TYPED_TEST(AddRmsNormTest, FollowsItsFormula) {
  this->ExpectFollowsItsFormula(NormMode::kSeparate);
}

TYPED_TEST(AddRmsNormTest, MayWriteItsInput) { this->ExpectFollowsItsFormula(NormMode::kInPlace); }

TYPED_TEST(AddRmsNormTest, AddsNothingIfThereIsNothing) {
  this->ExpectFollowsItsFormula(NormMode::kNothingAdded);
}

template <DType kType>
std::vector<Bits<kType>> RunSwiGlu(const std::vector<Bits<kType>>& x, int64_t x_stride, int size,
                                   int64_t y_stride) {
  std::vector<Bits<kType>> y(kRows * y_stride, kPoison<kType>);
  const SwiGluArgs args{x.data(), x_stride, y.data(), y_stride, kRows, size};
  const int num_threads = kRows * size / 8;
  Launch((num_threads + kFusedThreads - 1) / kFusedThreads, [&] { SwiGluKernel<kType>(args); });
  return y;
}

template <typename Type>
class SwiGluTest : public testing::Test {};
TYPED_TEST_SUITE(SwiGluTest, Types, TypeName);

TYPED_TEST(SwiGluTest, FollowsItsFormula) {
  constexpr DType kType = TypeParam::kType;
  for (const int size : kSizes) {
    const int64_t x_stride = 2 * size + 24, y_stride = size + 16;
    const auto x = ToBits<kType>(RandomRows(2 * size, x_stride, 4.f, 1));
    const std::vector<Bits<kType>> y = RunSwiGlu<kType>(x, x_stride, size, y_stride);
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < y_stride; ++i) {
        SCOPED_TRACE(testing::Message() << "size " << size << ", row " << row << ", " << i);
        const Bits<kType> got = y[row * y_stride + i];
        if (i >= size) {
          ASSERT_EQ(got, kPoison<kType>);
          continue;
        }
        const double gate = FloatFromBits<kType>(x[row * x_stride + i]);
        const double up = FloatFromBits<kType>(x[row * x_stride + size + i]);
        ExpectRounded<kType>(got, gate / (1. + std::exp(-gate)) * up);
      }
    }
  }
}

TYPED_TEST(SwiGluTest, HoldsGatesFarFromZero) {
  constexpr DType kType = TypeParam::kType;
  constexpr float kLargest = kType == DType::kFloat16 ? 65504.f : 3e38f;
  const float gates[] = {-kLargest, -6e4f, -1000.f, -100.f, -88.f, 88.f, 1000.f, kLargest};
  std::vector<float> x;
  for (int row = 0; row < kRows; ++row) {
    x.insert(x.end(), std::begin(gates), std::end(gates));
    x.insert(x.end(), 8, row - 1.f);
  }
  const std::vector<Bits<kType>> bits = ToBits<kType>(x);
  const std::vector<Bits<kType>> y = RunSwiGlu<kType>(bits, 16, 8, 8);
  for (int i = 0; i < kRows * 8; ++i) {
    const double gate = FloatFromBits<kType>(bits[i / 8 * 16 + i % 8]), up = i / 8 - 1.;
    SCOPED_TRACE(testing::Message() << "gate " << gate << ", up " << up);
    ExpectRounded<kType>(y[i], gate / (1. + std::exp(-gate)) * up);
  }
}

}  // namespace
}  // namespace evaserve

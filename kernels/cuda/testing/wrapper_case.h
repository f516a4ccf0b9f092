#pragma once

// For the tests of the wrappers of ptx.h, on a device or on the emulator, whichever the program is
// linked with. What a wrapper must give is written here from the instruction's definition (NVIDIA,
// "Parallel Thread Execution ISA"); nothing that kernels or the emulator use has a part in it.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/testing/wrapper_probe.h"

namespace evaserve {

class WrapperTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Gpu>> gpu = Gpu::Open(0);
    if (!gpu.ok()) GTEST_SKIP() << gpu.status();
    gpu_ = *std::move(gpu);
  }

  const GpuInfo& info() const { return gpu_->info(); }

  // What the probe leaves in `out`.
  template <typename Out, typename... In>
  std::vector<Out> Run(const Probe& probe, std::vector<Out> out, const std::vector<In>&... in) {
    const GpuMemory inputs[] = {ToDevice(in)..., GpuMemory()};
    const GpuMemory output = ToDevice(out);
    ProbeArgs args{.out = output.as<void>()};
    for (size_t i = 0; i < sizeof...(in); ++i) args.in[i] = inputs[i].template as<void>();
    const std::string error = probe(args, gpu_->stream());
    EXPECT_EQ(error, "");
    const absl::Status status =
        gpu_->ToHost(out.data(), output.as<void>(), static_cast<int64_t>(out.size() * sizeof(Out)));
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }

 private:
  template <typename T>
  GpuMemory ToDevice(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    absl::StatusOr<GpuMemory> memory = gpu_->Allocate(bytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    EXPECT_TRUE(gpu_->ToDevice(memory->as<void>(), values.data(), bytes).ok());
    return *std::move(memory);
  }

  std::unique_ptr<Gpu> gpu_;
};

// For what is compiled for sm_90a.
class HopperWrapperTest : public WrapperTest {
 protected:
  void SetUp() override {
    WrapperTest::SetUp();
    if (!IsSkipped() && info().compute_capability != 90) {
      GTEST_SKIP() << info().name << " is not of sm_90";
    }
  }
};

// Ones in all bits: NaN, or -1.
template <typename T>
std::vector<T> Unwritten(size_t count) {
  std::vector<T> values(count);
  std::memset(values.data(), 0xff, count * sizeof(T));
  return values;
}

// --- The 16-bit types

constexpr int FractionBits(DType type) { return type == DType::kBFloat16 ? 7 : 10; }
// Of the smallest normal number.
constexpr int MinExponent(DType type) { return type == DType::kBFloat16 ? -126 : -14; }

inline double HalfValue(DType type, uint16_t bits) {
  const int width = FractionBits(type), largest = (1 << (15 - width)) - 1;
  const int fraction = bits & ((1 << width) - 1), exponent = bits >> width & largest;
  double size = std::ldexp(fraction, MinExponent(type) - width);
  if (exponent > 0)
    size = std::ldexp(fraction + (1 << width), exponent - 1 + MinExponent(type) - width);
  if (exponent == largest) size = fraction == 0 ? INFINITY : NAN;
  return bits >> 15 != 0 ? -size : size;
}

// The nearest number of the type, of two the one with an even last bit; infinity past the largest.
inline double RoundedToHalf(DType type, double x) {
  if (!std::isfinite(x) || x == 0.) return x;
  const int unit = std::max(std::ilogb(x), MinExponent(type)) - FractionBits(type);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  const double limit = std::ldexp(1., 2 - MinExponent(type));
  return std::fabs(rounded) < limit ? rounded : std::copysign(INFINITY, x);
}

// Of a finite number of the type.
inline uint16_t HalfBits(DType type, double value) {
  const int width = FractionBits(type);
  const double size = std::fabs(value);
  const int exponent =
      size == 0. ? MinExponent(type) : std::max(std::ilogb(size), MinExponent(type));
  const int units = static_cast<int>(std::ldexp(size, width - exponent));
  const int bits = units + ((exponent - MinExponent(type)) << width);
  return static_cast<uint16_t>(bits | (std::signbit(value) ? 0x8000 : 0));
}
inline uint32_t HalfPair(DType type, double low, double high) {
  return HalfBits(type, low) | uint32_t{HalfBits(type, high)} << 16;
}

// --- Matrices

struct Matrix {
  int num_rows = 0, num_columns = 0;
  std::vector<double> values;

  double at(int row, int column) const { return values[row * num_columns + column]; }
};

// Normal numbers of the type.
inline Matrix RandomMatrix(DType type, int num_rows, int num_columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Matrix matrix{num_rows, num_columns, std::vector<double>(num_rows * num_columns)};
  for (double& value : matrix.values) value = RoundedToHalf(type, normal(random));
  return matrix;
}

// -15 to 15 times `unit`: tensor cores add up their products without an error.
inline Matrix WholeMatrix(double unit, int num_rows, int num_columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> whole(-15, 15);
  Matrix matrix{num_rows, num_columns, std::vector<double>(num_rows * num_columns)};
  for (double& value : matrix.values) value = unit * whole(random);
  return matrix;
}

struct Sum {
  double value = 0.;
  double size = 0.;  // of the terms, without their signs
};

// before + sum over k of a(row, k) b(k, column).
inline Sum ProductAt(const Matrix& a, const Matrix& b, int row, int column, double before = 0.) {
  Sum sum{before, std::fabs(before)};
  for (int k = 0; k < a.num_columns; ++k) {
    sum.value += a.at(row, k) * b.at(k, column);
    sum.size += std::fabs(a.at(row, k) * b.at(k, column));
  }
  return sum;
}

// Tensor cores add float32 with a bit more or less, and may cut off instead of rounding; sums of
// 16-bit numbers would be 2^-11 off.
constexpr double kSumTolerance = 0x1p-18;  // of Sum::size

}  // namespace evaserve

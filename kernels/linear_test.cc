#include "kernels/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"
#include "kernels/testing/threaded_worker_pool.h"

namespace evaserve {
namespace {

// What follows from rounding both operands to `dtype` and summing in float64.
double Dot(const float* x, const float* w, int64_t size, DType dtype) {
  double sum = 0;
  for (int64_t k = 0; k < size; ++k) {
    sum += dtype == DType::kFloat32 ? double{x[k]} * w[k]
                                    : double{ToFloat(ToBFloat16(x[k]))} * ToFloat(ToBFloat16(w[k]));
  }
  return sum;
}

struct Problem {
  Problem(int rows, int out, int in, DType dtype)
      : rows(rows),
        out(out),
        in(in),
        dtype(dtype),
        x(RandomVector(size_t(rows) * in, 1.f, 1)),
        w(RandomVector(size_t(out) * in, 1.f, 2)),
        y(size_t(rows) * out, NAN) {
    const WeightView view = {w.data(), DType::kFloat32, out, in};
    weight = PackedWeight::Pack({&view, 1}, dtype);
    params.weight = &weight;
    params.x = x.data();
    params.x_stride = in;
    params.y = y.data();
    params.y_stride = out;
    params.rows = rows;
  }
  Problem(const Problem&) = delete;

  double Want(int row, int column) const {
    return Dot(x.data() + int64_t{row} * in, w.data() + int64_t{column} * in, in, dtype);
  }

  int rows, out, in;
  DType dtype;
  std::vector<float> x, w, y;
  PackedWeight weight;
  LinearParams params;
};

// Float32 sums of `in` products of unit size.
double Tolerance(int in) { return 1e-6 * std::sqrt(in) + 1e-6 * in; }

class LinearTest : public testing::Test {
 protected:
  ~LinearTest() override { ForceCpuKernels(usual_); }
  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

TEST_F(LinearTest, AgreesWithTheReferenceOnEveryShapeAndInstructionSet) {
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (!ForceCpuKernels(isa)) continue;
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const int rows : {1, 2, 5, 6, 7, 13, 100}) {
        for (const auto& [out, in] : {std::pair{1, 1}, {3, 7}, {64, 64}, {65, 33}, {200, 96}}) {
          SCOPED_TRACE(testing::Message() << isa << " " << Name(dtype) << " rows " << rows
                                          << " out " << out << " in " << in);
          Problem p(rows, out, in, dtype);
          LinearCpu(p.params, workers_);
          for (int i = 0; i < rows * out; ++i) {
            ASSERT_NEAR(p.y[i], p.Want(i / out, i % out), Tolerance(in)) << i;
          }
        }
      }
    }
  }
}

TEST_F(LinearTest, ComputesARangeOfOutputFeaturesAndTouchesNothingElse) {
  Problem p(7, 200, 32, DType::kFloat32);
  p.params.out_begin = 37;
  p.params.out_end = 150;
  LinearCpu(p.params, workers_);
  for (int i = 0; i < 7 * 200; ++i) {
    if (i % 200 < 150 - 37) {
      ASSERT_NEAR(p.y[i], p.Want(i / 200, i % 200 + 37), Tolerance(32)) << i;
    } else {
      ASSERT_TRUE(std::isnan(p.y[i])) << i;
    }
  }
}

TEST_F(LinearTest, AddsToWhatIsThere) {
  Problem p(7, 70, 32, DType::kFloat32);
  std::fill(p.y.begin(), p.y.end(), 5.f);
  p.params.accumulate = true;
  LinearCpu(p.params, workers_);
  for (int i = 0; i < 7 * 70; ++i) ASSERT_NEAR(p.y[i], p.Want(i / 70, i % 70) + 5, 1e-4) << i;
}

// Rows before and behind a range, whole vectors and the rest of them.
TEST_F(LinearTest, AddsTheBiasOnceOnEveryInstructionSet) {
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (!ForceCpuKernels(isa)) continue;
    for (const auto& [begin, end] : {std::pair{0, 0}, {37, 150}, {64, 65}, {3, 5}}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(testing::Message() << isa << " " << begin << " " << end << " " << accumulate);
        Problem p(7, 200, 32, DType::kFloat32);
        const int count = end == 0 ? 200 : end - begin;
        std::vector<float> bias = RandomVector(200, 10.f, 3);
        for (int i = 0; i < 200; ++i) bias[i] = i < begin || i >= begin + count ? NAN : bias[i];
        if (accumulate) std::fill(p.y.begin(), p.y.end(), 5.f);
        p.params.out_begin = begin;
        p.params.out_end = end;
        p.params.accumulate = accumulate;
        p.params.bias = bias.data();
        LinearCpu(p.params, workers_);
        for (int i = 0; i < 7 * 200; ++i) {
          if (i % 200 >= count) continue;
          const double want = p.Want(i / 200, i % 200 + begin) + bias[i % 200 + begin];
          ASSERT_NEAR(p.y[i], want + (accumulate ? 5 : 0), 1e-4) << i;
        }
      }
    }
  }
}

TEST_F(LinearTest, PackedWeightsCanBeReadBack) {
  constexpr int kOut = 70;
  for (const int in : {1, 9, 600}) {  // the last is read in pieces
    const std::vector<float> w = RandomVector(kOut * in, 1.f, 1);
    for (const DType from : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      std::vector<float> stored(w.size());
      for (size_t i = 0; i < w.size(); ++i) StoreElement(stored.data(), from, i, w[i]);
      const WeightView view = {stored.data(), from, kOut, in};
      for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
        SCOPED_TRACE(testing::Message() << in << " " << Name(from) << " " << Name(dtype));
        const PackedWeight packed = PackedWeight::Pack({&view, 1}, dtype);
        for (int i = 0; i < kOut * in; ++i) {
          const float value = LoadElement(stored.data(), from, i);
          const float want = dtype == DType::kFloat32 ? value : ToFloat(ToBFloat16(value));
          ASSERT_EQ(packed.at(i / in, i % in), want) << i;
        }
      }
    }
  }
}

TEST_F(LinearTest, PaddingIsZero) {
  const std::vector<float> w(70 * 9, 1.f);
  const WeightView view = {w.data(), DType::kFloat32, 70, 9};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const auto bytes = static_cast<size_t>(PackedWeight::Pack({&view, 1}, dtype).bytes());
    std::memset(AllocateAligned(bytes).get(), 0xff, bytes);  // what is free is not zero: NaN
    const PackedWeight packed = PackedWeight::Pack({&view, 1}, dtype);
    const int64_t room = packed.bytes() / SizeOf(dtype);
    EXPECT_GT(room, std::ssize(w));
    float sum = 0;
    for (int64_t i = 0; i < room; ++i) sum += LoadElement(packed.data(), dtype, i);
    EXPECT_EQ(sum, 70 * 9);
  }
}

TEST_F(LinearTest, StacksPartsByRows) {
  const std::vector<float> a = RandomVector(5 * 8, 1.f, 1), b = RandomVector(70 * 8, 1.f, 2);
  std::vector<float> both = a;
  both.insert(both.end(), b.begin(), b.end());
  const WeightView parts[] = {{a.data(), DType::kFloat32, 5, 8},
                              {b.data(), DType::kFloat32, 70, 8}};
  const WeightView whole = {both.data(), DType::kFloat32, 75, 8};
  const PackedWeight stacked = PackedWeight::Pack(parts, DType::kFloat32);
  const PackedWeight direct = PackedWeight::Pack({&whole, 1}, DType::kFloat32);

  ASSERT_EQ(stacked.out_features(), 75);
  ASSERT_EQ(stacked.bytes(), direct.bytes());
  EXPECT_EQ(memcmp(stacked.data(), direct.data(), direct.bytes()), 0);
}

TEST_F(LinearTest, ReadsBFloat16Weights) {
  const std::vector<float> w = RandomVector(10 * 8, 1.f, 1);
  std::vector<BFloat16> rounded;
  for (const float x : w) rounded.push_back(ToBFloat16(x));
  const WeightView from_float = {w.data(), DType::kFloat32, 10, 8};
  const WeightView from_bfloat16 = {rounded.data(), DType::kBFloat16, 10, 8};
  const PackedWeight a = PackedWeight::Pack({&from_float, 1}, DType::kBFloat16);
  const PackedWeight b = PackedWeight::Pack({&from_bfloat16, 1}, DType::kBFloat16);
  EXPECT_EQ(memcmp(a.data(), b.data(), a.bytes()), 0);
}

TEST_F(LinearTest, OtherRowsAndWorkersDoNotChangeABit) {
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (!ForceCpuKernels(isa)) continue;
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      SCOPED_TRACE(testing::Message() << isa << " " << Name(dtype));
      Problem many(200, 320, 130, dtype);
      ThreadedWorkerPool threads(3);
      LinearCpu(many.params, threads);
      EXPECT_EQ(threads.num_runs(), 1);
      std::vector<float> alone(320);
      for (const int row : {0, 5, 95, 96, 199}) {
        LinearParams one = many.params;
        one.x += int64_t{row} * 130;
        one.y = alone.data();
        one.rows = 1;
        LinearCpu(one, workers_);
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), many.y.begin() + row * 320)) << row;
      }
    }
  }
}

}  // namespace
}  // namespace evaserve

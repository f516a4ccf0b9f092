#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"

namespace evaserve {
namespace {

class ElementwiseTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!ForceCpuKernels(GetParam())) GTEST_SKIP() << "this machine has no " << GetParam();
  }
  ~ElementwiseTest() override { ForceCpuKernels(usual_); }
  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

INSTANTIATE_TEST_SUITE_P(All, ElementwiseTest, testing::Values("baseline", "avx2", "avx512bf16"));

TEST_P(ElementwiseTest, RmsNormFollowsItsFormula) {
  for (const int size : {1, 5, 16, 64, 100}) {
    const std::vector<float> x = RandomVector(3 * 120, 2.f, 1), w = RandomVector(size, 1.f, 2);
    std::vector<float> y(3 * 110, NAN);
    RmsNormCpu({x.data(), 120, w.data(), y.data(), 110, 3, size, 1e-5f}, workers_);
    for (int row = 0; row < 3; ++row) {
      double sum = 0;
      for (int i = 0; i < size; ++i) sum += double{x[row * 120 + i]} * x[row * 120 + i];
      for (int i = 0; i < 110; ++i) {
        if (i >= size) {
          ASSERT_TRUE(std::isnan(y[row * 110 + i])) << "size " << size << ", wrote " << i;
          continue;
        }
        const double want = x[row * 120 + i] / std::sqrt(sum / size + 1e-5) * w[i];
        ASSERT_NEAR(y[row * 110 + i], want, 1e-6 * (1 + std::abs(want))) << size << " " << i;
      }
    }
  }
}

// Also far from zero, where a variance of one pass would drown.
TEST_P(ElementwiseTest, LayerNormFollowsItsFormula) {
  for (const int size : {1, 5, 16, 64, 100}) {
    for (const float offset : {0.f, 300.f}) {
      std::vector<float> x = RandomVector(3 * 120, 2.f, 1);
      for (float& value : x) value += offset;
      const std::vector<float> w = RandomVector(size, 1.f, 2), b = RandomVector(size, 1.f, 3);
      std::vector<float> y(3 * 110, NAN);
      for (int row = 0; row < 3; ++row) std::fill_n(&x[row * 120 + size], 120 - size, NAN);
      LayerNormCpu({x.data(), 120, w.data(), b.data(), y.data(), 110, 3, size, 1e-5f}, workers_);
      for (int row = 0; row < 3; ++row) {
        const float* from = &x[row * 120];
        double mean = 0, variance = 0;
        for (int i = 0; i < size; ++i) mean += double{from[i]} / size;
        for (int i = 0; i < size; ++i) variance += (from[i] - mean) * (from[i] - mean) / size;
        // The mean is off by a step or two of float32 at its own size.
        const double slack = 2e-6 + 3e-7 * offset / std::sqrt(variance + 1e-5);
        for (int i = 0; i < 110; ++i) {
          if (i >= size) {
            ASSERT_TRUE(std::isnan(y[row * 110 + i])) << "size " << size << ", wrote " << i;
            continue;
          }
          const double want = (from[i] - mean) / std::sqrt(variance + 1e-5) * w[i] + b[i];
          ASSERT_NEAR(y[row * 110 + i], want, slack * (1 + std::abs(want))) << size << " " << i;
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, LayerNormInPlaceGivesTheSame) {
  std::vector<float> x = RandomVector(4 * 50, 2.f, 1), y(x.size());
  const std::vector<float> w = RandomVector(50, 1.f, 2), b = RandomVector(50, 1.f, 3);
  LayerNormCpu({x.data(), 50, w.data(), b.data(), y.data(), 50, 4, 50, 1e-6f}, workers_);
  LayerNormCpu({x.data(), 50, w.data(), b.data(), x.data(), 50, 4, 50, 1e-6f}, workers_);
  EXPECT_EQ(x, y);
}

double Gelu(double x) { return x * std::erfc(-x / std::sqrt(2.)) / 2; }

TEST_P(ElementwiseTest, GeluIsWithinAMillionthEverywhere) {
  std::vector<float> x = {-1e30f, -1e15f, -300.f, -0.f, 1e-30f, 300.f, 1e15f, 1e30f};
  for (int i = -160000; i <= 160000; ++i) x.push_back(static_cast<float>(i) * 1e-4f);
  std::vector<float> y(x.size(), NAN);
  const int64_t size = static_cast<int64_t>(x.size());
  GeluCpu({x.data(), size, y.data(), size, 1, static_cast<int>(size)}, workers_);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(y[i], Gelu(x[i]), 1e-6 * std::max(1.f, std::abs(x[i]))) << x[i];
  }
}

TEST_P(ElementwiseTest, GeGluIsTheGeluOfOneHalfTimesTheOther) {
  for (const int size : {1, 7, 16, 50}) {
    std::vector<float> x = RandomVector(2 * 2 * size, 3.f, 3);
    const std::vector<float> before = x;
    GeGluCpu({x.data(), 2 * size, x.data(), 2 * size, 2, size}, workers_);
    for (int row = 0; row < 2; ++row) {
      for (int i = 0; i < size; ++i) {
        const double gate = before[row * 2 * size + i], up = before[row * 2 * size + size + i];
        ASSERT_NEAR(x[row * 2 * size + i], Gelu(gate) * up, 3e-6 * (1 + std::abs(up))) << gate;
      }
    }
  }
}

TEST_P(ElementwiseTest, ReluKeepsWhatIsPositiveAndNaN) {
  std::vector<float> x = RandomVector(2 * 30, 3.f, 3), y(2 * 30, NAN);
  x[4] = NAN;
  ReluCpu({x.data(), 30, y.data(), 30, 2, 27}, workers_);
  for (int i = 0; i < 60; ++i) {
    if (i % 30 >= 27 || i == 4) {
      ASSERT_TRUE(std::isnan(y[i])) << i;
    } else {
      ASSERT_EQ(y[i], std::max(x[i], 0.f)) << i;
    }
  }
}

TEST_P(ElementwiseTest, SwiGluFollowsItsFormulaInPlaceAndAtTheEnds) {
  for (const int size : {1, 7, 16, 50}) {
    std::vector<float> x = RandomVector(2 * 2 * size, 20.f, 3);
    x[0] = -1000.f;
    x[2 * size] = 1000.f;
    const std::vector<float> before = x;
    SwiGluCpu({x.data(), 2 * size, x.data(), 2 * size, 2, size}, workers_);
    for (int row = 0; row < 2; ++row) {
      for (int i = 0; i < size; ++i) {
        const double gate = before[row * 2 * size + i], up = before[row * 2 * size + size + i];
        const double want = gate / (1 + std::exp(-gate)) * up;
        ASSERT_NEAR(x[row * 2 * size + i], want, 1e-6 * (1 + std::abs(want))) << gate;
      }
    }
  }
}

}  // namespace
}  // namespace evaserve

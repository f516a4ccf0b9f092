#include "kernels/elementwise.h"

#include <gtest/gtest.h>

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

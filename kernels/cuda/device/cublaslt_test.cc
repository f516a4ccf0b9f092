// Needs the library, and no device.

#include "kernels/cuda/device/cublaslt.h"

#include <gtest/gtest.h>

#include <string>

namespace evaserve {
namespace {

TEST(CublasLtTest, HasEveryFunction) {
  const auto blas = LoadCublasLt();
  ASSERT_TRUE(blas.ok()) << blas.status();
  EXPECT_NE(std::string((*blas)->GetStatusString(CUBLAS_STATUS_ALLOC_FAILED)).find("allocation"),
            std::string::npos);
}

}  // namespace
}  // namespace evaserve

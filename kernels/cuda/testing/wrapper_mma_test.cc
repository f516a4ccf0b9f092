// Tensor cores of a warp. Fragments: PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".

#include "kernels/cuda/testing/wrapper_case.h"

namespace evaserve {
namespace {

// --- ldmatrix

class LoadMatricesWrapperTest : public WrapperTest, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(, LoadMatricesWrapperTest, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& info) {
                           return info.param ? "Transposed" : "Plain";
                         });

// Lane 8 m + r names row r of matrix m, and register m of lane t gets elements 2 (t % 4) and the
// next of row t / 4; transposed, of column t / 4.
TEST_P(LoadMatricesWrapperTest, LanesGetTheirPartsOfFourMatrices) {
  std::mt19937 random(1);
  std::vector<uint16_t> shared(2048);
  for (uint16_t& half : shared) half = static_cast<uint16_t>(random());
  std::vector<uint32_t> rows;  // the same one may be named twice
  for (int lane = 0; lane < 32; ++lane) rows.push_back(random() % 256 * 16);
  const auto element = [&](int matrix, int row, int column) {
    return uint32_t{shared[rows[8 * matrix + row] / 2 + column]};
  };
  std::vector<uint32_t> want;
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const int i = lane / 4, j = lane % 4 * 2;
      const uint32_t low = GetParam() ? element(matrix, j, i) : element(matrix, i, j);
      const uint32_t high = GetParam() ? element(matrix, j + 1, i) : element(matrix, i, j + 1);
      want.push_back(low | high << 16);
    }
  }
  EXPECT_EQ(Run(LoadMatricesProbe(GetParam()), Unwritten<uint32_t>(128), shared, rows), want);
}

// --- mma

class MmaWrapperTest : public WrapperTest, public testing::WithParamInterface<DType> {
 protected:
  static constexpr int kRows = 16, kColumns = 8, kDepth = 16;

  // Row and column of element i, 0 .. 3, of a lane's sums.
  static int SumRow(int lane, int i) { return lane / 4 + (i < 2 ? 0 : 8); }
  static int SumColumn(int lane, int i) { return lane % 4 * 2 + i % 2; }

  // c + a b, as the lanes hold it.
  std::vector<float> Multiply(const Matrix& a, const Matrix& b, const std::vector<float>& c) {
    std::vector<uint32_t> a_parts, b_parts;
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4, in_group = lane % 4;
      for (int i = 0; i < 8; i += 2) {
        const int row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
        const int column = in_group * 2 + (i < 4 ? 0 : 8);
        a_parts.push_back(HalfPair(GetParam(), a.at(row, column), a.at(row, column + 1)));
      }
      for (int i = 0; i < 4; i += 2) {
        const int row = in_group * 2 + (i < 2 ? 0 : 8);
        b_parts.push_back(HalfPair(GetParam(), b.at(row, group), b.at(row + 1, group)));
      }
    }
    return Run(MmaProbe(GetParam()), Unwritten<float>(128), a_parts, b_parts, c);
  }
  static void ExpectProduct(const std::vector<float>& got, const Matrix& a, const Matrix& b,
                            const std::vector<float>& c, double tolerance) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = SumRow(lane, i), column = SumColumn(lane, i);
        const Sum want = ProductAt(a, b, row, column, c[4 * lane + i]);
        EXPECT_NEAR(got[4 * lane + i], want.value, tolerance * want.size) << row << " " << column;
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(, MmaWrapperTest, testing::Values(DType::kBFloat16, DType::kFloat16),
                         [](const testing::TestParamInfo<DType>& info) {
                           return std::string(Name(info.param));
                         });

TEST_P(MmaWrapperTest, MultipliesWholeNumbersExactly) {
  const Matrix a = WholeMatrix(1., kRows, kDepth, 1), b = WholeMatrix(1., kDepth, kColumns, 2);
  std::vector<float> c(128);
  for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(i);
  ExpectProduct(Multiply(a, b, c), a, b, c, /*tolerance=*/0.);
}

TEST_P(MmaWrapperTest, AddsUpInFloat32) {
  const Matrix a = RandomMatrix(GetParam(), kRows, kDepth, 3),
               b = RandomMatrix(GetParam(), kDepth, kColumns, 4);
  const std::vector<float> c(128, 0.1f);
  ExpectProduct(Multiply(a, b, c), a, b, c, kSumTolerance);
}

TEST_P(MmaWrapperTest, TakesDenormals) {
  const double smallest = std::ldexp(1., MinExponent(GetParam()) - FractionBits(GetParam()));
  const Matrix a = WholeMatrix(smallest, kRows, kDepth, 5),
               b = WholeMatrix(0x1p10, kDepth, kColumns, 6);
  const std::vector<float> c(128, 0.f);
  ExpectProduct(Multiply(a, b, c), a, b, c, /*tolerance=*/0.);
}

}  // namespace
}  // namespace evaserve

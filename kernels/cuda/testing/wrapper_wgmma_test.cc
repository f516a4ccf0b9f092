// Tensor cores of a warpgroup (sm_90a). Fragments and layouts in shared memory: PTX ISA, "Register
// Fragments and Shared Memory Matrix Layouts" of wgmma.m64nNk16.

#include <tuple>

#include "kernels/cuda/testing/wrapper_case.h"

namespace evaserve {
namespace {

constexpr int kThreads = 128, kQueries = 64, kSlots = 128;

Matrix Transposed(const Matrix& from) {
  Matrix to{from.num_columns, from.num_rows, {}};
  for (int i = 0; i < to.num_rows; ++i) {
    for (int j = 0; j < to.num_columns; ++j) to.values.push_back(from.at(j, i));
  }
  return to;
}

class WgmmaWrapperTest : public HopperWrapperTest,
                         public testing::WithParamInterface<std::tuple<DType, int>> {
 protected:
  DType type() const { return std::get<0>(GetParam()); }
  int head_dim() const { return std::get<1>(GetParam()); }

  // Blocks of as many columns as the swizzle takes, rows of 128 or 64 bytes in them, and in each
  // row the 16-byte pieces permuted: with 8 pieces by the row, with 4 by every second row.
  std::vector<uint16_t> InSharedMemory(const Matrix& matrix) const {
    const int width = head_dim() % 64 == 0 ? 64 : 32, pieces = width / 8;
    std::vector<uint16_t> image(matrix.values.size());
    for (int i = 0; i < matrix.num_rows; ++i) {
      for (int j = 0; j < matrix.num_columns; ++j) {
        const int block = j / width * matrix.num_rows * width, piece = j % width / 8;
        const int turn = pieces == 8 ? i % 8 : i / 2 % 4;
        image[block + i * width + (piece ^ turn) * 8 + j % 8] = HalfBits(type(), matrix.at(i, j));
      }
    }
    return image;
  }

  // What the threads hold of a, 64 rows, by 16 columns.
  std::vector<uint32_t> InRegisters(const Matrix& a) const {
    std::vector<uint32_t> parts;
    for (int thread = 0; thread < kThreads; ++thread) {
      const int warp = thread / 32, group = thread % 32 / 4, in_group = thread % 4;
      for (int step = 0; step < a.num_columns; step += 16) {
        for (int i = 0; i < 8; i += 2) {
          const int row = 16 * warp + group + (i % 4 == 0 ? 0 : 8);
          const int column = step + in_group * 2 + (i < 4 ? 0 : 8);
          parts.push_back(HalfPair(type(), a.at(row, column), a.at(row, column + 1)));
        }
      }
    }
    return parts;
  }

  // `got` and `before`: what the threads hold of 64 x b.num_columns sums.
  static void ExpectProduct(const float* got, const Matrix& a, const Matrix& b,
                            const std::vector<float>& before, double tolerance) {
    const int num_sums = b.num_columns / 2;
    for (int thread = 0; thread < kThreads; ++thread) {
      for (int i = 0; i < num_sums; ++i) {
        const int row = thread / 32 * 16 + thread % 32 / 4 + (i % 4 < 2 ? 0 : 8);
        const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
        const int at = thread * num_sums + i;
        const Sum want = ProductAt(a, b, row, column, before.empty() ? 0. : before[at]);
        ASSERT_NEAR(got[at], want.value, tolerance * want.size) << row << " " << column;
      }
    }
  }

  // d + queries keys^T.
  void ExpectKeysMultiplied(const Matrix& queries, const Matrix& keys, double tolerance) {
    const std::vector<float> before = Before(kSlots);
    const std::vector<float> got =
        Run(WgmmaSharedProbe(type(), head_dim()), Unwritten<float>(before.size()),
            InSharedMemory(queries), InSharedMemory(keys), before);
    ExpectProduct(got.data(), queries, Transposed(keys), before, tolerance);
  }
  // d + weights values.
  void ExpectValuesMultiplied(const Matrix& weights, const Matrix& values, double tolerance) {
    const std::vector<float> before = Before(head_dim());
    const std::vector<float> got =
        Run(WgmmaRegistersProbe(type(), head_dim()), Unwritten<float>(before.size()),
            InRegisters(weights), InSharedMemory(values), before);
    ExpectProduct(got.data(), weights, values, before, tolerance);
  }

 private:
  static std::vector<float> Before(int num_columns) {
    std::vector<float> before(kThreads * num_columns / 2);
    for (size_t i = 0; i < before.size(); ++i) before[i] = static_cast<float>(i % 100) - 50.f;
    return before;
  }
};

INSTANTIATE_TEST_SUITE_P(, WgmmaWrapperTest,
                         testing::Combine(testing::Values(DType::kBFloat16, DType::kFloat16),
                                          testing::Values(32, 64, 96, 128)),
                         [](const testing::TestParamInfo<std::tuple<DType, int>>& info) {
                           return std::string(Name(std::get<0>(info.param))) + "_" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST_P(WgmmaWrapperTest, MultipliesWholeNumbersInSharedMemoryExactly) {
  ExpectKeysMultiplied(WholeMatrix(1., kQueries, head_dim(), 1),
                       WholeMatrix(1., kSlots, head_dim(), 2), /*tolerance=*/0.);
}

TEST_P(WgmmaWrapperTest, MultipliesWholeNumbersInRegistersExactly) {
  ExpectValuesMultiplied(WholeMatrix(1., kQueries, kSlots, 3),
                         WholeMatrix(1., kSlots, head_dim(), 4), /*tolerance=*/0.);
}

TEST_P(WgmmaWrapperTest, AddsUpInFloat32) {
  ExpectKeysMultiplied(RandomMatrix(type(), kQueries, head_dim(), 5),
                       RandomMatrix(type(), kSlots, head_dim(), 6), kSumTolerance);
  ExpectValuesMultiplied(RandomMatrix(type(), kQueries, kSlots, 7),
                         RandomMatrix(type(), kSlots, head_dim(), 8), kSumTolerance);
}

TEST_P(WgmmaWrapperTest, TwoWarpgroupsMakeBothProductsAtOnce) {
  const Matrix queries = WholeMatrix(1., kQueries, head_dim(), 9),
               keys = WholeMatrix(1., kSlots, head_dim(), 10),
               values = WholeMatrix(1., kSlots, head_dim(), 11),
               weights = WholeMatrix(1., kQueries, kSlots, 12);
  std::vector<uint16_t> shared;
  for (const Matrix* matrix : {&queries, &keys, &values}) {
    const std::vector<uint16_t> image = InSharedMemory(*matrix);
    shared.insert(shared.end(), image.begin(), image.end());
  }
  const int num_logits = kThreads * kSlots / 2, num_floats = kThreads * (kSlots + head_dim()) / 2;

  const std::vector<float> got =
      Run(WgmmaPairProbe(type(), head_dim()), Unwritten<float>(2 * num_floats), shared,
          InRegisters(weights));

  for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
    const float* const sums = got.data() + warpgroup * num_floats;
    ExpectProduct(sums, queries, Transposed(keys), {}, /*tolerance=*/0.);
    ExpectProduct(sums + num_logits, weights, values, {}, /*tolerance=*/0.);
  }
}

}  // namespace
}  // namespace evaserve

// Barriers in shared memory, and bulk copies that arrive at them (sm_90).

#include "kernels/cuda/testing/wrapper_case.h"

namespace evaserve {
namespace {

TEST_F(HopperWrapperTest, NobodyPassesAPhaseBeforeAllHaveArrived) {
  constexpr int kRounds = 7;
  std::vector<int> want;
  for (int round = 0; round < kRounds; ++round) {
    for (int thread = 0; thread < 128; ++thread) want.push_back(1000 * round + (thread + 1) % 128);
  }
  EXPECT_EQ(Run(MbarrierProbe(kRounds), Unwritten<int>(want.size())), want);
}

class CopyBulkWrapperTest : public HopperWrapperTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(, CopyBulkWrapperTest, testing::Values(32, 1008, 32768),
                         testing::PrintToStringParamName());

TEST_P(CopyBulkWrapperTest, ABulkCopyIsThereWhenItsBytesHaveArrived) {
  std::mt19937 random(1);
  std::vector<char> bytes(2 * GetParam());
  for (char& byte : bytes) byte = static_cast<char>(random());
  EXPECT_EQ(Run(CopyBulkProbe(GetParam()), Unwritten<char>(bytes.size()), bytes), bytes);
}

// --- Boxes of a matrix. Layout: CUDA driver API, CUtensorMapSwizzle.

class CopyBoxWrapperTest : public HopperWrapperTest, public testing::WithParamInterface<BoxShape> {
 protected:
  // Where element (i, j) of the box lies: its 16-byte piece is permuted by bits 7 and up of the
  // address, of which there are as many as pieces in a row.
  static size_t Place(const BoxShape& box, int i, int j) {
    const int row_bytes = box.box_columns * 2, pieces = row_bytes / 16;
    const int turn = i * row_bytes / 128 % pieces;
    return i * box.box_columns + ((j / 8) ^ turn) * 8 + j % 8;
  }
};

INSTANTIATE_TEST_SUITE_P(
    , CopyBoxWrapperTest,
    testing::Values(
        // Of 64 columns, swizzled in 128 bytes: inside, past the last row, past the last column.
        BoxShape{192, 300, 192, 64, 128, 64, 100}, BoxShape{192, 300, 200, 64, 128, 128, 211},
        BoxShape{72, 130, 80, 64, 128, 64, 3}, BoxShape{64, 5, 64, 64, 128, 0, 5},
        // Of 32 columns, in 64 bytes.
        BoxShape{96, 300, 96, 32, 128, 32, 100}, BoxShape{96, 300, 104, 32, 128, 64, 211},
        BoxShape{40, 130, 40, 32, 64, 32, 3}));

TEST_P(CopyBoxWrapperTest, ABoxIsSwizzledAndZeroOutside) {
  const BoxShape box = GetParam();
  std::vector<uint16_t> matrix(box.num_rows * box.row_stride);
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<uint16_t>(i * 40503 + 1);
  std::vector<uint16_t> want(box.box_rows * box.box_columns);
  for (int i = 0; i < box.box_rows; ++i) {
    for (int j = 0; j < box.box_columns; ++j) {
      const int row = box.row + i, column = box.column + j;
      const bool is_inside = row < box.num_rows && column < box.num_columns;
      want[Place(box, i, j)] = is_inside ? matrix[row * box.row_stride + column] : 0;
    }
  }
  EXPECT_EQ(Run(CopyBoxProbe(box), Unwritten<uint16_t>(want.size()), matrix), want);
}

}  // namespace
}  // namespace evaserve

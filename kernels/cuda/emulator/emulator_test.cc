#include "kernels/cuda/emulator/emulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/cuda/ptx.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

absl::Status RunBlock(int block_size, absl::FunctionRef<void()> kernel, uint64_t seed = 1) {
  return emulator::Launch({1, block_size, 4096, seed}, kernel);
}

TEST(EmulatorTest, RunsEveryThreadOfEveryBlockOnce) {
  std::vector<int> runs(3 * 64);

  const absl::Status status =
      emulator::Launch({3, 64, 0, 5}, [&] { ++runs[ptx::BlockIndex() * 64 + ptx::ThreadIndex()]; });

  EXPECT_TRUE(status.ok());
  EXPECT_THAT(runs, ::testing::Each(1));
}

TEST(EmulatorTest, SharedMemoryStartsAsNaN) {
  float value = 0.f;
  EXPECT_TRUE(RunBlock(32, [&] { std::memcpy(&value, ptx::SharedMemory(), 4); }).ok());
  EXPECT_TRUE(std::isnan(value));
}

TEST(EmulatorTest, NobodyPassesABarrierBeforeAllHaveCome) {
  int num_before = 0;
  bool is_right = true;
  EXPECT_TRUE(RunBlock(256, [&] {
                ++num_before;
                ptx::SyncBlock();
                is_right = is_right && num_before == 256;
              }).ok());
  EXPECT_TRUE(is_right);
}

TEST(EmulatorTest, ShufflesGoBothWays) {
  bool is_right = true;
  EXPECT_TRUE(RunBlock(32, [&] {
                const int lane = ptx::ThreadIndex();
                is_right = is_right && ptx::ShuffleXor(lane, 5) == (lane ^ 5);
              }).ok());
  EXPECT_TRUE(is_right);
}

TEST(EmulatorTest, ADeadlockTellsWhoWaitsForWhat) {
  const absl::Status status = RunBlock(64, [] {
    if (ptx::ThreadIndex() < 32) ptx::SyncNamed(1, 64);
  });
  EXPECT_THAT(std::string(status.message()), HasSubstr("deadlock: thread 0: bar.sync;"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("thread 32: done"));
}

TEST(EmulatorTest, LanesThatDivergeAreAnError) {
  const absl::Status status = RunBlock(32, [] {
    if (ptx::ThreadIndex() == 3) {
      ptx::SyncWarp();
    } else {
      ptx::ShuffleXor(0.f, 1);
    }
  });
  EXPECT_THAT(std::string(status.message()), HasSubstr("threads diverge"));
}

TEST(EmulatorTest, ACopyIsNotThereBeforeItIsWaitedFor) {
  alignas(16) const float source[4] = {1.f, 2.f, 3.f, 4.f};
  float before = 0.f, after = 0.f;
  EXPECT_TRUE(RunBlock(32, [&] {
                if (ptx::ThreadIndex() != 0) return;
                ptx::CopyAsync(0, source, true);
                ptx::CommitCopies();
                std::memcpy(&before, ptx::SharedMemory(), 4);
                ptx::WaitForCopies<0>();
                std::memcpy(&after, ptx::SharedMemory(), 4);
              }).ok());
  EXPECT_TRUE(std::isnan(before));
  EXPECT_EQ(after, 1.f);
}

TEST(EmulatorTest, ABulkCopyArrivesAtItsBarrier) {
  alignas(16) const float source[4] = {1.f, 2.f, 3.f, 4.f};
  float after = 0.f;
  EXPECT_TRUE(RunBlock(32, [&] {
                if (ptx::ThreadIndex() == 0) {
                  ptx::InitBarrier(64, 1);
                  ptx::ArriveExpecting(64, 16);
                  ptx::CopyBulk(0, source, 16, 64);
                }
                ptx::SyncWarp();
                ptx::Wait(64, 0);
                if (ptx::ThreadIndex() == 7) std::memcpy(&after, ptx::SharedMemory() + 4, 4);
              }).ok());
  EXPECT_EQ(after, 2.f);
}

TEST(EmulatorTest, SumsOfAWgmmaAreNotThereBeforeTheyAreWaitedFor) {
  bool was_nan = true, is_right = true;
  const absl::Status status = emulator::Launch({1, 128, 32768, 3}, [&] {
    const int thread = ptx::ThreadIndex();
    auto* ones = reinterpret_cast<uint16_t*>(ptx::SharedMemory());
    for (int i = thread; i < 16384; i += 128) ones[i] = 0x3f80;
    ptx::SyncBlock();
    float d[64] = {};
    const auto a = ptx::MatrixDescriptor(0, ptx::Swizzle::k128Bytes, 16, 1024);
    ptx::FenceWgmma();
    ptx::WgmmaShared<DType::kBFloat16, 128>(d, a, a, false);
    ptx::CommitWgmmas();
    was_nan = was_nan && std::isnan(d[0]);
    ptx::SyncBlock();
    ptx::WaitForWgmmas<0>();
    is_right = is_right && d[0] == 16.f && d[63] == 16.f;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(was_nan);
  EXPECT_TRUE(is_right);
}

TEST(EmulatorTest, AWarpsPartOfAWgmmaReadsItsOperandsWhenTheWarpWaits) {
  constexpr uint16_t kOne = 0x3f80, kTwo = 0x4000;
  float first = 0.f, last = 0.f;
  const absl::Status status = emulator::Launch({1, 128, 32768, 3}, [&] {
    const int thread = ptx::ThreadIndex();
    auto* numbers = reinterpret_cast<uint16_t*>(ptx::SharedMemory());
    const auto fill = [&](uint16_t number) {
      ptx::SyncBlock();
      for (int i = thread; i < 16384; i += 128) numbers[i] = number;
      ptx::SyncBlock();
    };
    fill(kOne);
    float d[64] = {};
    const auto a = ptx::MatrixDescriptor(0, ptx::Swizzle::k128Bytes, 16, 1024);
    ptx::FenceWgmma();
    ptx::WgmmaShared<DType::kBFloat16, 128>(d, a, a, false);
    ptx::CommitWgmmas();
    if (thread < 32) ptx::WaitForWgmmas<0>();
    fill(kTwo);
    ptx::WaitForWgmmas<0>();
    if (thread == 0) first = d[0];
    if (thread == 127) last = d[0];
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(first, 16.f);
  EXPECT_EQ(last, 64.f);
}

TEST(EmulatorTest, OutOfSharedMemoryIsAnError) {
  const absl::Status status = RunBlock(32, [] { ptx::CopyAsync(4096, nullptr, false); });
  EXPECT_THAT(std::string(status.message()), HasSubstr("out of range"));
}

}  // namespace
}  // namespace evaserve

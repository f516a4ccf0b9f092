// Numbers, threads, and copies of a thread.

#include <gmock/gmock.h>

#include <bit>
#include <numeric>

#include "kernels/cuda/testing/wrapper_case.h"

namespace evaserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAreArray;
using ::testing::UnorderedElementsAreArray;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kSmallestNormal = 0x1p-126f;

std::vector<float> RandomFloats(int count, float from, float to, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(from, to);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

// --- Numbers

class NumbersWrapperTest : public WrapperTest {
 protected:
  enum Result { kExp2, kLog2, kReciprocalSqrt, kFma, kFromBits };

  std::vector<float> Results(Result which, const std::vector<float>& a, const std::vector<float>& b,
                             const std::vector<float>& c) {
    const size_t count = a.size();
    const std::vector<float> all =
        Run(NumbersProbe(static_cast<int>(count)), Unwritten<float>(5 * count), a, b, c);
    return {all.begin() + which * count, all.begin() + (which + 1) * count};
  }
  std::vector<float> Results(Result which, const std::vector<float>& a) {
    return Results(which, a, a, a);
  }
};

// Two units in the last place, which the slowest of them may be off.
constexpr double kNumberTolerance = 0x1p-22;

void ExpectClose(float got, double want, float of) {
  EXPECT_NEAR(got, want, kNumberTolerance * std::fabs(want)) << "of " << of;
}

TEST_F(NumbersWrapperTest, Exp2IsCloseForNormalResults) {
  const std::vector<float> x = RandomFloats(4000, -125.9f, 127.9f, 1);
  const std::vector<float> y = Results(kExp2, x);
  for (size_t i = 0; i < x.size(); ++i) ExpectClose(y[i], std::exp2(double{x[i]}), x[i]);
}

TEST_F(NumbersWrapperTest, Exp2OfWhatIsHiddenIsZero) {
  EXPECT_THAT(Results(kExp2, {-200.f, -1e30f, -kInfinity}), Each(0.f));
}

// Flushed to zero on a device, not in the emulator.
TEST_F(NumbersWrapperTest, Exp2OfLittleIsLessThanANormalNumber) {
  for (const float y : Results(kExp2, RandomFloats(100, -160.f, -126.1f, 2))) {
    EXPECT_GE(y, 0.f);
    EXPECT_LT(y, kSmallestNormal);
  }
}

TEST_F(NumbersWrapperTest, Exp2KnowsItsLimits) {
  EXPECT_THAT(Results(kExp2, {0.f, -0.f, 1.f, -1.f, 128.f, kInfinity}),
              ElementsAreArray({1.f, 1.f, 2.f, 0.5f, kInfinity, kInfinity}));
  EXPECT_TRUE(std::isnan(Results(kExp2, {kNaN})[0]));
}

TEST_F(NumbersWrapperTest, Log2IsClose) {
  std::vector<float> x = RandomFloats(4000, 0x1p-100f, 8.f, 3);
  for (const float more : {0x1p-149f, 0x1p-130f, 0x1p100f, 1.f, 1.0000001f}) x.push_back(more);
  const std::vector<float> y = Results(kLog2, x);
  for (size_t i = 0; i < x.size(); ++i) ExpectClose(y[i], std::log2(double{x[i]}), x[i]);
}

TEST_F(NumbersWrapperTest, Log2KnowsItsLimits) {
  const std::vector<float> y = Results(kLog2, {0.f, kInfinity, -1.f, kNaN});
  EXPECT_EQ(y[0], -kInfinity);
  EXPECT_EQ(y[1], kInfinity);
  EXPECT_TRUE(std::isnan(y[2]));
  EXPECT_TRUE(std::isnan(y[3]));
}

TEST_F(NumbersWrapperTest, ReciprocalSqrtIsClose) {
  std::vector<float> x = RandomFloats(4000, 0x1p-40f, 9.f, 4);
  for (const float more : {0x1p-126f, 0x1p100f, 1e-5f}) x.push_back(more);
  const std::vector<float> y = Results(kReciprocalSqrt, x);
  for (size_t i = 0; i < x.size(); ++i) ExpectClose(y[i], 1. / std::sqrt(double{x[i]}), x[i]);
}

// a * b is exact in float64, and its sum with c is nearly so.
TEST_F(NumbersWrapperTest, FmaRoundsOnce) {
  std::vector<float> a = RandomFloats(4000, -2.f, 2.f, 5), b = RandomFloats(4000, -2.f, 2.f, 6),
                     c(4000);
  for (size_t i = 0; i < c.size(); ++i) c[i] = -a[i] * b[i];  // what remains is small
  const std::vector<float> y = Results(kFma, a, b, c);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(y[i], static_cast<float>(double{a[i]} * b[i] + c[i])) << a[i] << " " << b[i];
  }
}

TEST_F(NumbersWrapperTest, FloatFromBitsChangesNoBit) {
  const std::vector<float> x = {1.f, -0.f, 0x1p-149f, kInfinity, -3.25f};
  EXPECT_EQ(Results(kFromBits, x), x);
}

// --- Halves

class HalvesWrapperTest : public WrapperTest, public testing::WithParamInterface<DType> {
 protected:
  std::vector<uint32_t> Pack(const std::vector<float>& pairs) {
    const size_t count = pairs.size() / 2;
    return Run(PackProbe(GetParam(), static_cast<int>(count)), Unwritten<uint32_t>(count), pairs);
  }
  std::vector<float> Unpack(const std::vector<uint32_t>& pairs) {
    return Run(UnpackProbe(GetParam(), static_cast<int>(pairs.size())),
               Unwritten<float>(2 * pairs.size()), pairs);
  }
  void ExpectRounded(const std::vector<float>& pairs) {
    const std::vector<uint32_t> packed = Pack(pairs);
    for (size_t i = 0; i < pairs.size(); ++i) {
      const auto bits = static_cast<uint16_t>(packed[i / 2] >> (i % 2 * 16));
      const double want = RoundedToHalf(GetParam(), pairs[i]);
      EXPECT_EQ(HalfValue(GetParam(), bits), want) << "of " << pairs[i];
      EXPECT_EQ(bits >> 15, std::signbit(want) ? 1 : 0) << "of " << pairs[i];
    }
  }
  double Smallest() const {
    return std::ldexp(1., MinExponent(GetParam()) - FractionBits(GetParam()));
  }
};

std::string TypeName(const testing::TestParamInfo<DType>& info) {
  return std::string(Name(info.param));
}
INSTANTIATE_TEST_SUITE_P(, HalvesWrapperTest, testing::Values(DType::kBFloat16, DType::kFloat16),
                         TypeName);

TEST_P(HalvesWrapperTest, PackRoundsToNearest) {
  std::vector<float> x = RandomFloats(2000, -4.f, 4.f, 7),
                     large = RandomFloats(2000, -1e5f, 1e5f, 8);
  x.insert(x.end(), large.begin(), large.end());
  ExpectRounded(x);
}

TEST_P(HalvesWrapperTest, PackTakesTiesToEven) {
  const float unit = std::ldexp(1.f, -FractionBits(GetParam()));
  std::vector<float> ties;
  for (int i = 0; i < 64; ++i)
    ties.push_back((i % 2 == 0 ? 1.f : -1.f) * (1.f + (i + 0.5f) * unit));
  ExpectRounded(ties);
}

TEST_P(HalvesWrapperTest, PackMakesDenormals) {
  std::vector<float> x;
  for (int i = 0; i < 200; ++i) x.push_back(static_cast<float>((i - 100) * 0.25 * Smallest()));
  ExpectRounded(x);
}

TEST_P(HalvesWrapperTest, PackOverflowsToInfinity) {
  // Where 65504 and the largest bfloat16 end, and the first numbers that are past them.
  ExpectRounded({65504.f, 65519.f, 65520.f, -65520.f, 0x1.fep127f, 0x1.fefffep127f, 0x1.ffp127f,
                 -0x1.ffp127f, kInfinity, -kInfinity, 0.f, -0.f});
}

TEST_P(HalvesWrapperTest, PackKeepsNaN) {
  const uint32_t pair = Pack({kNaN, std::bit_cast<float>(0x7f800001u)})[0];
  EXPECT_TRUE(std::isnan(HalfValue(GetParam(), static_cast<uint16_t>(pair))));
  EXPECT_TRUE(std::isnan(HalfValue(GetParam(), static_cast<uint16_t>(pair >> 16))));
}

TEST_P(HalvesWrapperTest, UnpackIsExactForAllHalves) {
  std::vector<uint32_t> pairs;
  for (uint32_t low = 0; low < 0x10000; ++low) pairs.push_back(low | (low * 40503 + 7) << 16);
  const std::vector<float> halves = Unpack(pairs);
  for (size_t i = 0; i < halves.size(); ++i) {
    const auto bits = static_cast<uint16_t>(pairs[i / 2] >> (i % 2 * 16));
    const double want = HalfValue(GetParam(), bits);
    ASSERT_TRUE(std::isnan(want) ? std::isnan(halves[i]) : halves[i] == want) << "of " << bits;
  }
}

// --- Threads

TEST_F(WrapperTest, EveryThreadKnowsItsPlace) {
  std::vector<int> want;
  for (int block = 0; block < 5; ++block) {
    for (int thread = 0; thread < 96; ++thread) want.insert(want.end(), {block, thread, 5});
  }
  EXPECT_EQ(Run(IndicesProbe(5, 96), Unwritten<int>(want.size())), want);
}

TEST_F(WrapperTest, ShufflesGoBetweenLanesThatDifferInTheMask) {
  const std::vector<float> x = RandomFloats(32, -1.f, 1.f, 9);
  std::vector<float> want;
  for (int mask = 0; mask < 32; ++mask) {
    for (int lane = 0; lane < 32; ++lane) want.push_back(x[lane ^ mask]);
  }
  EXPECT_EQ(Run(ShuffleProbe(), Unwritten<float>(32 * 32), x), want);
}

TEST_F(WrapperTest, AUniformValueStaysWhatItIs) {
  const std::vector<int> values = {3, -1, 1 << 30, 0};
  const std::vector<int> got = Run(UniformProbe(), Unwritten<int>(128), values);
  for (int thread = 0; thread < 128; ++thread) EXPECT_EQ(got[thread], values[thread / 32]);
}

TEST_F(WrapperTest, WhatThreadsStoreIsThereAfterTheySync) {
  std::vector<int> want;
  for (int thread = 0; thread < 128; ++thread)
    want.push_back(thread / 32 * 32 + (thread + 1) % 32 + 1);
  for (int thread = 0; thread < 128; ++thread) want.push_back((thread + 33) % 128 + 1);
  EXPECT_EQ(Run(SyncProbe(), Unwritten<int>(256)), want);
}

TEST_F(WrapperTest, NamedBarriersHandOverAndBack) {
  constexpr int kRounds = 20;
  std::vector<int> want;
  for (int round = 0; round < kRounds; ++round) {
    for (int lane = 0; lane < 32; ++lane) want.push_back(32 * round + 31 - lane);
  }
  EXPECT_EQ(Run(NamedBarrierProbe(kRounds), Unwritten<int>(want.size())), want);
}

TEST_F(WrapperTest, TheLastBlockToComeSeesWhatAllHaveStored) {
  constexpr int kBlocks = 40, kThreads = 128 * kBlocks;
  const std::vector<int> out =
      Run(LastBlockProbe(kBlocks), std::vector<int>(2 + kBlocks + kThreads));
  EXPECT_EQ(out[0], 3 * kBlocks);
  EXPECT_EQ(out[1], kThreads * (kThreads - 1) / 2);
  std::vector<int> befores;
  for (int block = 0; block < kBlocks; ++block) befores.push_back(3 * block);
  EXPECT_THAT(std::vector<int>(out.begin() + 2, out.begin() + 2 + kBlocks),
              UnorderedElementsAreArray(befores));
}

// --- Copies

TEST_F(WrapperTest, ACopyThatIsNotValidGivesZeros) {
  std::vector<uint32_t> words(2 * 128 * 4);
  std::iota(words.begin(), words.end(), 1u << 20);
  std::vector<int> is_valid;
  for (int piece = 0; piece < 2 * 128; ++piece) is_valid.push_back(piece * 7 % 3 == 0 ? 0 : 1);
  std::vector<uint32_t> want = words;
  for (size_t i = 0; i < want.size(); ++i) want[i] *= is_valid[i / 4];
  EXPECT_EQ(Run(CopyAsyncProbe(), Unwritten<uint32_t>(words.size()), words, is_valid), want);
}

}  // namespace
}  // namespace evaserve

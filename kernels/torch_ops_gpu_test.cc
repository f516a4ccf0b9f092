// The device's part of torch.ops.eva on the emulator, whose tensors are the CPU's, against the
// operations of the CPU.

#include "kernels/torch_ops_gpu.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randn.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/torch_ops_signatures.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

// Of the root mean squares: the type's rounding of keys, values, weights and results.
double ToleranceOf(at::ScalarType type) {
  return type == at::kFloat ? 2e-6 : type == at::kHalf ? 1e-3 : 8e-3;
}

double RelativeError(const at::Tensor& out, const at::Tensor& want) {
  EXPECT_EQ(out.sizes(), want.sizes());
  const at::Tensor difference = out.to(at::kFloat).sub(want.to(at::kFloat));
  return difference.norm().item().toDouble() / want.to(at::kFloat).norm().item().toDouble();
}

struct Sizes {
  int64_t batch = 1, num_heads = 2, seq_len = 1, head_dim = 32;
  int64_t window = 64, chunk = 16;
};

TorchEvaCall RandomCall(const Sizes& sizes, at::ScalarType type = at::kFloat) {
  const auto tokens = [&] {
    return at::randn({sizes.batch, sizes.num_heads, sizes.seq_len, sizes.head_dim}).to(type);
  };
  const auto per_head = [&] { return at::randn({sizes.num_heads, sizes.head_dim}); };
  return {tokens(),   tokens(),     tokens(),    per_head(),
          per_head(), sizes.window, sizes.chunk, std::nullopt};
}

class TorchGpuOpsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(EVASERVE_TORCH_OPS, RTLD_NOW), nullptr) << dlerror();
  }

  TorchGpuStream Stream(bool is_capturing = false) {
    return {.stream = &stream_, .is_capturing = is_capturing};
  }
  static TorchGpuOps::Options Device(int compute_capability) {
    return {.compute_capability = compute_capability, .num_multiprocessors = 3};
  }

  // The CPU's, in float32 on what the device gets.
  static at::Tensor CpuAttention(const TorchEvaCall& call) {
    const auto f = [](const at::Tensor& x) { return x.to(at::kFloat); };
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow("eva::attention", "")
        .typed<AttentionFn>()
        .call(f(call.q), f(call.k), f(call.v), call.mu, call.phi, call.window, call.chunk,
              call.scale);
  }
  static std::tuple<at::Tensor, at::Tensor> CpuSummarize(const TorchEvaCall& call) {
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow("eva::summarize", "")
        .typed<SummarizeFn>()
        .call(call.k.to(at::kFloat), call.v.to(at::kFloat), call.mu, call.phi, call.chunk,
              call.scale);
  }

  double AttentionError(const TorchEvaCall& call, TorchGpuOps& ops) {
    return RelativeError(ops.Attention(call, Stream()), CpuAttention(call));
  }
  std::string ErrorOf(const std::function<void(TorchEvaCall&)>& change) {
    TorchEvaCall call = RandomCall({.seq_len = 40});
    change(call);
    try {
      ops_.Attention(call, Stream());
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "";
  }

  EmulatedStream stream_;
  TorchGpuOps ops_{Device(90)};
};

TEST_F(TorchGpuOpsTest, AttendsAsTheCpuDoes) {
  const std::vector<Sizes> all = {
      {.seq_len = 1},
      {.seq_len = 7},  // no whole chunk
      {.batch = 3, .seq_len = 64},
      {.batch = 2, .seq_len = 65},
      {.batch = 2, .seq_len = 300, .head_dim = 64, .window = 128},
      {.seq_len = 420, .window = 160, .chunk = 32},  // windows and summaries of several pages
      {.batch = 2, .seq_len = 200, .head_dim = 96, .window = 4, .chunk = 1},
      {.num_heads = 1, .seq_len = 650, .window = 640, .chunk = 1},  // few queries that see much
      {.seq_len = 150, .head_dim = 128, .window = 1024}};
  for (const int compute_capability : {80, 90}) {
    TorchGpuOps ops(Device(compute_capability));
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat}) {
      for (const Sizes& sizes : all) {
        EXPECT_LT(AttentionError(RandomCall(sizes, type), ops), ToleranceOf(type))
            << type << ", " << sizes.seq_len << " tokens, sm_" << compute_capability;
      }
    }
  }
}

TEST_F(TorchGpuOpsTest, SummarizesAsTheCpuDoes) {
  const std::vector<Sizes> all = {
      {.seq_len = 16},
      {.batch = 3, .seq_len = 100, .head_dim = 64},
      {.batch = 2, .seq_len = 300, .head_dim = 96, .chunk = 2},  // summaries of two pages
      {.seq_len = 40, .head_dim = 128, .chunk = 8}};
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat}) {
    for (const Sizes& sizes : all) {
      const TorchEvaCall call = RandomCall(sizes, type);
      const auto [keys, values] = ops_.Summarize(call, Stream());
      const auto [want_keys, want_values] = CpuSummarize(call);
      EXPECT_EQ(keys.scalar_type(), type);
      EXPECT_LT(RelativeError(keys, want_keys), ToleranceOf(type)) << sizes.head_dim;
      EXPECT_LT(RelativeError(values, want_values), ToleranceOf(type)) << sizes.head_dim;
    }
  }
}

TEST_F(TorchGpuOpsTest, GivesContiguousTensors) {
  const TorchEvaCall call = RandomCall({.batch = 2, .seq_len = 33});
  const auto [keys, values] = ops_.Summarize(call, Stream());
  EXPECT_TRUE(ops_.Attention(call, Stream()).is_contiguous());
  EXPECT_TRUE(keys.is_contiguous() && values.is_contiguous());
}

TEST_F(TorchGpuOpsTest, TakesNoTokensAndNoSequences) {
  EXPECT_EQ(ops_.Attention(RandomCall({.seq_len = 0}), Stream()).size(2), 0);
  EXPECT_EQ(ops_.Attention(RandomCall({.batch = 0, .seq_len = 5}), Stream()).size(0), 0);
  EXPECT_EQ(std::get<0>(ops_.Summarize(RandomCall({.seq_len = 15}), Stream())).size(2), 0);
  EXPECT_EQ(std::get<1>(ops_.Summarize(RandomCall({.batch = 0, .seq_len = 32}), Stream())).size(0),
            0);
}

// As a model makes them, [batch, seq_len, num_heads, head_dim]: k and v are read where they are.
TEST_F(TorchGpuOpsTest, TakesTransposedTensorsAndLeavesThemAlone) {
  const auto tokens = [] { return at::randn({2, 70, 2, 32}).transpose(1, 2); };
  const at::Tensor mu = at::randn({32, 2}).t();
  const TorchEvaCall call{tokens(), tokens(), tokens(), mu, mu, 32, 16, 0.3};
  const at::Tensor q = call.q.clone(), k = call.k.clone();
  EXPECT_LT(AttentionError(call, ops_), ToleranceOf(at::kFloat));
  EXPECT_TRUE(call.q.equal(q) && call.k.equal(k));
}

// The kernels rotate q where it is, by nothing, which makes infinity NaN.
TEST_F(TorchGpuOpsTest, RotatesACopyOfTheQueries) {
  TorchEvaCall call = RandomCall({.seq_len = 40});
  call.q = at::full({1, 40, 2, 32}, INFINITY).transpose(1, 2);
  ops_.Attention(call, Stream());
  EXPECT_TRUE(call.q.equal(at::full_like(call.q, INFINITY)));
}

TEST_F(TorchGpuOpsTest, TakesTensorsThatBeginAnywhere) {
  const auto random = [](at::IntArrayRef sizes) {
    const int64_t count = c10::multiply_integers(sizes);
    return at::randn({count + 1}).narrow(0, 1, count).view(sizes);
  };
  const auto tokens = [&] { return random({1, 33, 2, 32}).transpose(1, 2); };
  const TorchEvaCall call{tokens(),        tokens(),      tokens(), random({2, 32}),
                          random({2, 32}), /*window=*/32, 16,       std::nullopt};
  EXPECT_LT(AttentionError(call, ops_), ToleranceOf(at::kFloat));
}

TEST_F(TorchGpuOpsTest, RepeatsACallWithOtherValues) {
  for (int i = 0; i < 3; ++i) {
    const TorchEvaCall call = RandomCall({.batch = 2, .seq_len = 130}, at::kBFloat16);
    EXPECT_LT(AttentionError(call, ops_), ToleranceOf(at::kBFloat16));
  }
}

TEST_F(TorchGpuOpsTest, TellsCallsApart) {
  const Sizes sizes[] = {{.seq_len = 100, .window = 32},
                         {.seq_len = 100, .window = 32, .chunk = 8},
                         {.seq_len = 100, .window = 64},
                         {.seq_len = 100, .head_dim = 64, .window = 32},
                         {.seq_len = 99, .window = 32},
                         {.num_heads = 1, .seq_len = 100, .window = 32},
                         {.batch = 2, .seq_len = 100, .window = 32}};
  for (const double scale : {0.3, 0.6}) {
    for (const Sizes& size : sizes) {
      TorchEvaCall call = RandomCall(size);
      call.scale = scale;
      EXPECT_LT(AttentionError(call, ops_), ToleranceOf(at::kFloat));
    }
  }
}

TEST_F(TorchGpuOpsTest, AGraphNeedsACallBefore) {
  const TorchEvaCall call = RandomCall({.seq_len = 100});
  EXPECT_THROW(ops_.Attention(call, Stream(/*is_capturing=*/true)), c10::Error);
  EXPECT_THROW(ops_.Summarize(call, Stream(/*is_capturing=*/true)), c10::Error);
  ops_.Attention(call, Stream());
  ops_.Summarize(call, Stream());
  EXPECT_NO_THROW(ops_.Attention(call, Stream(/*is_capturing=*/true)));
  EXPECT_NO_THROW(ops_.Summarize(call, Stream(/*is_capturing=*/true)));
}

TEST_F(TorchGpuOpsTest, ForgetsThePlanThatWasNotUsedLongest) {
  TorchGpuOps ops({.compute_capability = 90, .num_multiprocessors = 3, .max_plans = 3});
  const auto call = [](int64_t seq_len) { return RandomCall({.seq_len = seq_len}); };
  const auto capture = [&](int64_t seq_len) {
    ops.Attention(call(seq_len), Stream(/*is_capturing=*/true));
  };
  for (const int64_t seq_len : {10, 20, 30, 10, 40}) ops.Attention(call(seq_len), Stream());
  EXPECT_THROW(capture(20), c10::Error);
  EXPECT_NO_THROW(capture(10));
  // A graph has it now.
  for (const int64_t seq_len : {50, 60, 70}) ops.Attention(call(seq_len), Stream());
  EXPECT_NO_THROW(capture(10));
  EXPECT_THROW(capture(40), c10::Error);
}

TEST_F(TorchGpuOpsTest, NamesTheArgumentThatIsWrong) {
  const auto error = [&](auto change) { return ErrorOf(change); };
  EXPECT_EQ(error([](TorchEvaCall&) {}), "");
  EXPECT_THAT(error([](TorchEvaCall& c) { c.q = c.q.to(at::kHalf); }), HasSubstr("q is Half"));
  EXPECT_THAT(error([](TorchEvaCall& c) { c.q = c.k = c.v = c.k.to(at::kDouble); }),
              HasSubstr("k is Double"));
  EXPECT_THAT(error([](TorchEvaCall& c) { c.mu = c.mu.to(at::kMeta); }),
              HasSubstr("mu is on meta, k is on cpu"));
  EXPECT_THAT(error([](TorchEvaCall& c) { c.v = c.v.narrow(2, 0, 39); }),
              HasSubstr("v is [1, 2, 39, 32]"));
  EXPECT_THAT(error([](TorchEvaCall& c) { c.window = 40; }), HasSubstr("window is 40"));
  EXPECT_THAT(error([](TorchEvaCall& c) { c.window = c.chunk = 24; }),
              HasSubstr("chunk is 24; allowed on a device: divisors of 128"));
  EXPECT_THAT(error([](TorchEvaCall& c) { c = RandomCall({.seq_len = 4, .head_dim = 40}); }),
              HasSubstr("head_dim is 40; allowed on a device: 32, 64, 96, 128"));
}

TEST_F(TorchGpuOpsTest, RefusesWhatTheKernelsCannotCount) {
  // Expanded from one token: no memory.
  const at::Tensor token = at::randn({1, 2, 1, 32});
  EXPECT_THAT(ErrorOf([&](TorchEvaCall& c) {
                c.q = c.k = c.v = token.expand({1 << 15, 2, 1 << 15, 32});
              }),
              HasSubstr("k has batch * num_heads * seq_len = 2147483648"));
  EXPECT_THAT(ErrorOf([&](TorchEvaCall& c) {
                c.q = c.k = c.v = token.expand({1, 2, 1 << 20, 32});
                c.window = c.chunk = 1;
              }),
              HasSubstr("window is 1, too short for seq_len = 1048576"));
}

}  // namespace
}  // namespace evaserve

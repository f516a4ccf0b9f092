// The device's part of the paper's attention in torch.ops.eva on the emulator, whose tensors are
// the CPU's, against the operations of the CPU.

#include "kernels/torch_ops_paper_gpu.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/torch_ops_signatures.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

// Of the root mean squares: the type's rounding of landmarks, weights and results.
double ToleranceOf(at::ScalarType type) {
  return type == at::kFloat ? 5e-6 : type == at::kHalf ? 2e-3 : 1.5e-2;
}

double RelativeError(const at::Tensor& out, const at::Tensor& want) {
  EXPECT_EQ(out.sizes(), want.sizes());
  const at::Tensor difference = out.to(at::kFloat).sub(want);
  return difference.norm().item().toDouble() / want.norm().item().toDouble();
}

std::vector<at::Tensor> RandomMap(int64_t head_dim) {
  return {at::randn({head_dim, head_dim}).mul(0.2), at::randn({head_dim}), at::randn({head_dim}),
          at::randn({head_dim})};
}

// Sizes of q: [batch, num_heads, tokens..., head_dim].
TorchPaperCall RandomCall(at::IntArrayRef sizes, at::ScalarType type = at::kFloat) {
  TorchPaperCall call;
  for (at::Tensor* x : {&call.q, &call.k, &call.v}) *x = at::randn(sizes).to(type);
  call.map_q = RandomMap(sizes.back());
  call.map_k = RandomMap(sizes.back());
  return call;
}

TorchPaperCall WindowCall(at::IntArrayRef sizes, int64_t window, int64_t num_landmarks,
                          bool overlap, at::ScalarType type = at::kFloat) {
  TorchPaperCall call = RandomCall(sizes, type);
  call.window = window;
  call.num_landmarks = num_landmarks;
  call.overlap = overlap;
  return call;
}

TorchPaperCall CausalCall(at::IntArrayRef sizes, int64_t window, int64_t chunk, bool overlap,
                          at::ScalarType type = at::kFloat) {
  TorchPaperCall call = RandomCall(sizes, type);
  call.window = window;
  call.chunk = chunk;
  call.overlap = overlap;
  return call;
}

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

class TorchPaperOpsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(EVASERVE_TORCH_OPS, RTLD_NOW), nullptr) << dlerror();
  }

  TorchGpuStream Stream(bool is_capturing = false) {
    return {.stream = &stream_, .is_capturing = is_capturing};
  }
  at::Tensor Run(const TorchPaperCall& call, bool is_capturing = false) {
    return call.chunk == 0 ? ops_.WindowAttention(call, Stream(is_capturing))
                           : ops_.CausalAttention(call, Stream(is_capturing));
  }
  // In float32 on what the device gets.
  static at::Tensor OnCpu(const TorchPaperCall& call) {
    const bool is_causal = call.chunk != 0;
    const auto f = [](const at::Tensor& x) { return x.to(at::kFloat); };
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow(is_causal ? "eva::causal_attention" : "eva::window_attention", "")
        .typed<WindowAttentionFn>()
        .call(f(call.q), f(call.k), f(call.v), call.window,
              is_causal ? call.chunk : call.num_landmarks, call.map_q, call.map_k, call.bias,
              call.overlap, call.lengths, call.scale);
  }
  double ErrorOf(const TorchPaperCall& call) { return RelativeError(Run(call), OnCpu(call)); }
  std::string MessageOf(const TorchPaperCall& call, bool is_capturing = false) {
    try {
      Run(call, is_capturing);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "";
  }

  EmulatedStream stream_;
  TorchPaperOps ops_;
};

TEST_F(TorchPaperOpsTest, AttendsInWindowsAsTheCpuDoes) {
  for (const at::ScalarType type : kTypes) {
    EXPECT_LT(ErrorOf(WindowCall({1, 2, 1, 32}, 1, 1, false, type)), ToleranceOf(type));
    EXPECT_LT(ErrorOf(WindowCall({2, 2, 61, 64}, 8, 8, true, type)), ToleranceOf(type));
    EXPECT_LT(ErrorOf(WindowCall({2, 3, 14, 14, 64}, 7, 49, false, type)), ToleranceOf(type));
    EXPECT_LT(ErrorOf(WindowCall({1, 1, 12, 8, 24}, 4, 6, true, type)), ToleranceOf(type));
  }
}

TEST_F(TorchPaperOpsTest, AttendsCausallyAsTheCpuDoes) {
  for (const at::ScalarType type : kTypes) {
    EXPECT_LT(ErrorOf(CausalCall({1, 2, 3, 32}, 16, 4, false, type)), ToleranceOf(type));
    EXPECT_LT(ErrorOf(CausalCall({2, 2, 45, 64}, 16, 4, true, type)), ToleranceOf(type));
  }
}

TEST_F(TorchPaperOpsTest, TakesABiasAndMapsOfEveryForm) {
  TorchPaperCall call = WindowCall({2, 3, 14, 7, 32}, 7, 32, true);
  call.bias = at::randn({3, 49, 169});
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
  call.map_q = {};
  call.map_k.resize(2);
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
  TorchPaperCall causal = CausalCall({1, 2, 40, 32}, 16, 4, true);
  causal.bias = at::randn({16, 32}).to(at::kBFloat16);
  EXPECT_LT(ErrorOf(causal), ToleranceOf(at::kFloat));
}

TEST_F(TorchPaperOpsTest, TakesSequencesOneAfterTheOther) {
  TorchPaperCall call = WindowCall({1, 2, 70, 32}, 8, 4, true);
  call.lengths = at::tensor(std::vector<int64_t>{13, 40, 13, 4});
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
  TorchPaperCall causal = CausalCall({1, 2, 70, 32}, 16, 8, false);
  causal.lengths = call.lengths;
  EXPECT_LT(ErrorOf(causal), ToleranceOf(at::kFloat));
  // Other sequences of the same sum.
  call.lengths = at::tensor(std::vector<int64_t>{40, 13, 4, 13});
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
}

// As a model makes them: parts of one projection are read where they are.
TEST_F(TorchPaperOpsTest, TakesPartsOfAProjectionAndTensorsThatBeginAnywhere) {
  TorchPaperCall call = WindowCall({2, 2, 16, 32}, 4, 4, false);
  const at::Tensor qkv = at::randn({2, 16, 3, 2, 32}).permute({2, 0, 3, 1, 4});
  call.q = qkv.select(0, 0);
  call.k = qkv.select(0, 1);
  call.v = qkv.select(0, 2);
  const at::Tensor before = qkv.clone();
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
  EXPECT_TRUE(qkv.equal(before));
  for (at::Tensor* x : {&call.q, &call.k, &call.v}) {
    *x = at::randn({2 * 2 * 16 * 32 + 1}).narrow(0, 1, 2 * 2 * 16 * 32).view({2, 2, 16, 32});
  }
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
}

TEST_F(TorchPaperOpsTest, TakesExpandedTensors) {
  TorchPaperCall call = WindowCall({2, 2, 16, 32}, 4, 4, false);
  call.k = call.k.narrow(2, 0, 1).expand_as(call.q);
  call.v = call.v.narrow(1, 0, 1).expand_as(call.q);
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
  for (at::Tensor* x : {&call.q, &call.k, &call.v}) *x = x->narrow(2, 0, 1).expand_as(call.q);
  EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat));
}

TEST_F(TorchPaperOpsTest, TellsCallsApart) {
  for (const double scale : {0.3, 0.6}) {
    for (TorchPaperCall call :
         {WindowCall({2, 2, 48, 32}, 8, 8, true), WindowCall({2, 2, 48, 32}, 8, 8, false),
          WindowCall({2, 2, 48, 32}, 8, 16, true), WindowCall({2, 2, 48, 32}, 16, 8, true),
          WindowCall({2, 2, 8, 6, 32}, 2, 12, false), CausalCall({2, 2, 48, 32}, 8, 8, true),
          CausalCall({2, 2, 48, 32}, 8, 4, true), CausalCall({2, 2, 48, 32}, 8, 4, false)}) {
      call.scale = scale;
      EXPECT_LT(ErrorOf(call), ToleranceOf(at::kFloat)) << call.q.sizes() << call.window;
    }
  }
}

TEST_F(TorchPaperOpsTest, TellsAMapFromASequenceWithLengths) {
  EXPECT_LT(ErrorOf(WindowCall({1, 2, 32, 32, 32}, 8, 16, false)), ToleranceOf(at::kFloat));
  TorchPaperCall sequence = WindowCall({1, 2, 32, 32}, 8, 16, false);
  sequence.lengths = at::tensor({32}, at::kLong);
  EXPECT_LT(ErrorOf(sequence), ToleranceOf(at::kFloat));
}

TEST_F(TorchPaperOpsTest, TakesNoTokens) {
  EXPECT_EQ(Run(WindowCall({2, 2, 0, 32}, 8, 8, true)).size(2), 0);
  EXPECT_EQ(Run(CausalCall({0, 2, 5, 32}, 8, 8, true)).size(0), 0);
  TorchPaperCall call = WindowCall({1, 2, 0, 32}, 8, 8, true);
  call.lengths = at::tensor({5}, at::kLong);
  EXPECT_THAT(MessageOf(call), HasSubstr("lengths has 5"));
}

TEST_F(TorchPaperOpsTest, AGraphNeedsACallBefore) {
  const TorchPaperCall call = WindowCall({1, 2, 24, 32}, 8, 8, true);
  EXPECT_THAT(MessageOf(call, /*is_capturing=*/true), HasSubstr("call it once"));
  Run(call);
  EXPECT_EQ(MessageOf(call, /*is_capturing=*/true), "");
}

// What is on a device can be neither read nor waited for then.
TEST_F(TorchPaperOpsTest, AGraphNeedsLengthsOnTheHost) {
  TorchPaperCall call = WindowCall({1, 2, 24, 32}, 8, 8, true);
  call.lengths = at::tensor({24}, at::kLong);
  Run(call);
  EXPECT_EQ(MessageOf(call, /*is_capturing=*/true), "");
  call.lengths = call.lengths->to(at::kMeta);
  EXPECT_THAT(MessageOf(call, /*is_capturing=*/true),
              HasSubstr("lengths is on meta, must be on the CPU while a CUDA graph is captured"));
}

TEST_F(TorchPaperOpsTest, NamesTheArgumentThatIsWrong) {
  const auto message = [&](auto change) {
    TorchPaperCall call = WindowCall({1, 2, 24, 32}, 8, 8, true);
    change(call);
    return MessageOf(call);
  };
  EXPECT_EQ(message([](TorchPaperCall&) {}), "");
  EXPECT_THAT(message([](TorchPaperCall& c) { c.v = c.v.to(at::kHalf); }), HasSubstr("v is Half"));
  EXPECT_THAT(message([](TorchPaperCall& c) { c.q = c.k = c.v = c.q.to(at::kDouble); }),
              HasSubstr("q is Double, must be float32, bfloat16 or float16"));
  EXPECT_THAT(message([](TorchPaperCall& c) { c.map_k.pop_back(); }), HasSubstr("map_k has 3"));
  EXPECT_THAT(message([](TorchPaperCall& c) { c.bias = c.q; }), HasSubstr("bias is [1, 2, 24"));
  EXPECT_THAT(message([](TorchPaperCall& c) { c.num_landmarks = 40; }),
              HasSubstr("num_landmarks is 40"));
  EXPECT_THAT(message([](TorchPaperCall& c) { c.lengths = at::tensor(std::vector<int64_t>{20}); }),
              HasSubstr("the sum of lengths is 20"));
  EXPECT_THAT(message([](TorchPaperCall& c) { c.scale = 0.; }), HasSubstr("scale is 0"));
  EXPECT_THAT(message([](TorchPaperCall& c) { c.scale = INFINITY; }), HasSubstr("scale is inf"));
  EXPECT_THAT(MessageOf(WindowCall({1, 2, 24, 12}, 8, 8, true)),
              HasSubstr("head_dim is 12; allowed: multiples of 8 on a device"));
}

TEST_F(TorchPaperOpsTest, TheCpuRefusesFloat16) {
  const TorchPaperCall call = WindowCall({1, 2, 24, 32}, 8, 8, true, at::kHalf);
  try {
    c10::Dispatcher::singleton()
        .findSchemaOrThrow("eva::window_attention", "")
        .typed<WindowAttentionFn>()
        .call(call.q, call.k, call.v, 8, 8, call.map_q, call.map_k, std::nullopt, true,
              std::nullopt, std::nullopt);
    ADD_FAILURE() << "no error";
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(), HasSubstr("float32 or bfloat16 on the CPU"));
  }
}

}  // namespace
}  // namespace evaserve

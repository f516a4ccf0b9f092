// torch.ops.eva on a device, through the dispatcher, against the CPU's.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/randn.h>
#include <c10/cuda/CUDAGuard.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <tuple>

#include "kernels/torch_ops_signatures.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

constexpr int64_t kWindow = 256, kChunk = 16;

// Of the root mean squares: the type's rounding of keys, values, weights and results.
double ToleranceOf(at::ScalarType type) {
  return type == at::kFloat ? 1e-5 : type == at::kHalf ? 1e-3 : 8e-3;
}

double RelativeError(const at::Tensor& out, const at::Tensor& want) {
  EXPECT_EQ(out.sizes(), want.sizes());
  const at::Tensor expected = want.to(at::kCPU, at::kFloat);
  return out.to(at::kCPU, at::kFloat).sub(expected).norm().item().toDouble() /
         expected.norm().item().toDouble();
}

struct Inputs {
  at::Tensor q, k, v, mu, phi;

  Inputs To(at::Device device, at::ScalarType type) const {
    const auto to = [&](const at::Tensor& x) { return x.to(device, type); };
    return {to(q), to(k), to(v), mu.to(device), phi.to(device)};
  }
};

// As the device's type rounds them.
Inputs RandomInputs(int64_t seq_len, int64_t head_dim, at::ScalarType type) {
  const auto tokens = [&] { return at::randn({2, 3, seq_len, head_dim}).to(type); };
  const auto per_head = [&] { return at::randn({3, head_dim}); };
  return {tokens(), tokens(), tokens(), per_head(), per_head()};
}

at::Tensor Attention(const Inputs& in) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow("eva::attention", "")
      .typed<AttentionFn>()
      .call(in.q, in.k, in.v, in.mu, in.phi, kWindow, kChunk, std::nullopt);
}
std::tuple<at::Tensor, at::Tensor> Summarize(const Inputs& in) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow("eva::summarize", "")
      .typed<SummarizeFn>()
      .call(in.k, in.v, in.mu, in.phi, kChunk, std::nullopt);
}

class TorchOpsCudaTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(EVASERVE_TORCH_OPS, RTLD_NOW), nullptr) << dlerror();
  }
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "there is no device";
  }

  const at::Device cuda_{at::kCUDA, 0};
};

TEST_F(TorchOpsCudaTest, AgreesWithTheCpu) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat}) {
    for (const int64_t head_dim : {32, 64, 96, 128}) {
      for (const int64_t seq_len : {1, 255, 700}) {
        SCOPED_TRACE(testing::Message() << type << " " << head_dim << " " << seq_len);
        const Inputs in = RandomInputs(seq_len, head_dim, type), on_cuda = in.To(cuda_, type);
        const Inputs on_cpu = in.To(at::kCPU, at::kFloat);
        EXPECT_LT(RelativeError(Attention(on_cuda), Attention(on_cpu)), ToleranceOf(type));
        if (seq_len < kChunk) continue;
        const auto [keys, values] = Summarize(on_cuda);
        const auto [want_keys, want_values] = Summarize(on_cpu);
        EXPECT_LT(RelativeError(keys, want_keys), ToleranceOf(type));
        EXPECT_LT(RelativeError(values, want_values), ToleranceOf(type));
      }
    }
  }
}

TEST_F(TorchOpsCudaTest, AGraphComputesAgainWithNewInputs) {
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  const auto new_inputs = [] { return RandomInputs(600, 64, at::kBFloat16); };
  const Inputs in = new_inputs().To(cuda_, at::kBFloat16);
  Attention(in);
  Summarize(in);

  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const at::Tensor out = Attention(in);
  const at::Tensor keys = std::get<0>(Summarize(in));
  graph.capture_end();
  for (int i = 0; i < 2; ++i) {
    const Inputs next = new_inputs();
    in.q.copy_(next.q);
    in.k.copy_(next.k);
    in.v.copy_(next.v);
    graph.replay();
    Inputs on_cpu = next.To(at::kCPU, at::kFloat);
    on_cpu.mu = in.mu.cpu();
    on_cpu.phi = in.phi.cpu();
    EXPECT_LT(RelativeError(out, Attention(on_cpu)), ToleranceOf(at::kBFloat16));
    EXPECT_LT(RelativeError(keys, std::get<0>(Summarize(on_cpu))), ToleranceOf(at::kBFloat16));
  }
}

TEST_F(TorchOpsCudaTest, AGraphNeedsACallBefore) {
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  const Inputs in = RandomInputs(77, 64, at::kHalf).To(cuda_, at::kHalf);
  std::string message;
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  try {
    Attention(in);
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  }
  graph.capture_end();
  EXPECT_THAT(message, HasSubstr("call it once"));
}

TEST_F(TorchOpsCudaTest, AllStreamsShareAPlan) {
  const Inputs in = RandomInputs(500, 64, at::kBFloat16), on_cuda = in.To(cuda_, at::kBFloat16);
  const at::Tensor want = Attention(on_cuda);
  c10::cuda::device_synchronize();
  for (int i = 0; i < 3; ++i) {
    const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
    EXPECT_TRUE(Attention(on_cuda).equal(want));
  }
}

TEST_F(TorchOpsCudaTest, NamesWhatIsElsewhere) {
  Inputs in = RandomInputs(9, 32, at::kFloat).To(cuda_, at::kFloat);
  in.phi = in.phi.cpu();
  try {
    Attention(in);
    ADD_FAILURE() << "no error";
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(), HasSubstr("phi is on cpu, k is on cuda:0"));
  }
}

}  // namespace
}  // namespace evaserve

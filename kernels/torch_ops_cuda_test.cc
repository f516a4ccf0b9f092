// torch.ops.eva on a device, through the dispatcher, against the CPU's. EVASERVE_TORCH_OPS in the
// environment is another library than the build's.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

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

// Of the paper, on a map or causally.
struct PaperInputs {
  at::Tensor q, k, v;
  std::vector<at::Tensor> map_q, map_k;
  std::optional<at::Tensor> bias, lengths;  // lengths stay on the host
  bool overlap = true;

  PaperInputs To(at::Device device, at::ScalarType type) const {
    const auto all = [&](const std::vector<at::Tensor>& map) {
      std::vector<at::Tensor> moved;
      for (const at::Tensor& x : map) moved.push_back(x.to(device));
      return moved;
    };
    const auto to = [&](const at::Tensor& x) { return x.to(device, type); };
    PaperInputs moved{to(q), to(k), to(v), all(map_q), all(map_k), bias, lengths, overlap};
    if (bias) moved.bias = bias->to(device);
    return moved;
  }
};

PaperInputs RandomPaperInputs(at::IntArrayRef sizes, at::IntArrayRef bias, at::ScalarType type) {
  const int64_t d = sizes.back();
  const auto tokens = [&] { return at::randn(sizes).to(type); };
  const auto map = [&] {
    return std::vector<at::Tensor>{at::randn({d, d}).mul(0.2), at::randn({d}), at::randn({d}),
                                   at::randn({d})};
  };
  return {tokens(), tokens(), tokens(), map(), map(), at::randn(bias)};
}

at::Tensor PaperAttention(const char* name, const PaperInputs& in, int64_t window, int64_t pieces) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<WindowAttentionFn>().call(
      in.q, in.k, in.v, window, pieces, in.map_q, in.map_k, in.bias, in.overlap, in.lengths,
      std::nullopt);
}

class TorchOpsCudaTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* const path = std::getenv("EVASERVE_TORCH_OPS");
    ASSERT_NE(dlopen(path != nullptr ? path : EVASERVE_TORCH_OPS, RTLD_NOW), nullptr) << dlerror();
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

TEST_F(TorchOpsCudaTest, ThePapersAttentionAgreesWithTheCpu) {
  const auto same = [](PaperInputs&) {};
  const auto check = [&](const char* name, at::IntArrayRef sizes, at::IntArrayRef bias,
                         int64_t window, int64_t pieces, auto change) {
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf, at::kFloat}) {
      SCOPED_TRACE(testing::Message() << name << " " << type);
      PaperInputs in = RandomPaperInputs(sizes, bias, type);
      change(in);
      const at::Tensor out = PaperAttention(name, in.To(cuda_, type), window, pieces);
      const at::Tensor want = PaperAttention(name, in.To(at::kCPU, at::kFloat), window, pieces);
      EXPECT_LT(RelativeError(out, want), 2 * ToleranceOf(type));  // landmarks are rounded too
    }
  };
  check("eva::window_attention", {2, 3, 28, 28, 64}, {3, 49, 169}, 7, 49, same);
  check("eva::window_attention", {2, 2, 130, 32}, {2, 32, 64}, 32, 8, same);
  check("eva::causal_attention", {2, 2, 300, 64}, {64, 128}, 64, 8, same);

  const auto plain = [](PaperInputs& in) {
    in.bias.reset();
    in.overlap = false;
    in.map_q.clear();
    in.map_k.resize(2);
  };
  check("eva::window_attention", {2, 3, 28, 28, 64}, {1}, 7, 49, plain);
  check("eva::causal_attention", {2, 2, 300, 40}, {1}, 64, 8, plain);
  const auto ragged = [](PaperInputs& in) {
    in.lengths = at::tensor(std::vector<int64_t>{13, 200, 1, 86});
  };
  check("eva::window_attention", {1, 2, 300, 32}, {2, 32, 64}, 32, 8, ragged);
  check("eva::causal_attention", {1, 2, 300, 64}, {64, 128}, 64, 8, ragged);
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

TEST_F(TorchOpsCudaTest, AGraphComputesThePapersAttentionAgainWithNewInputs) {
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  const auto new_inputs = [](at::IntArrayRef bias) {
    PaperInputs in = RandomPaperInputs({1, 2, 300, 64}, bias, at::kBFloat16);
    in.lengths = at::tensor(std::vector<int64_t>{13, 200, 1, 86});
    return in;
  };
  const auto check = [&](const char* name, at::IntArrayRef bias) {
    SCOPED_TRACE(name);
    const PaperInputs in = new_inputs(bias).To(cuda_, at::kBFloat16);
    const auto run = [&](const PaperInputs& inputs) {
      return PaperAttention(name, inputs, /*window=*/32, /*pieces=*/8);
    };
    run(in);
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    const at::Tensor out = run(in);
    graph.capture_end();
    for (int i = 0; i < 2; ++i) {
      const PaperInputs next = new_inputs(bias);
      in.q.copy_(next.q);
      in.k.copy_(next.k);
      in.v.copy_(next.v);
      graph.replay();
      EXPECT_LT(RelativeError(out, run(in.To(at::kCPU, at::kFloat))),
                2 * ToleranceOf(at::kBFloat16));
    }
  };
  check("eva::window_attention", {2, 32, 64});
  check("eva::causal_attention", {32, 64});
}

TEST_F(TorchOpsCudaTest, AGraphNeedsLengthsOnTheHost) {
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  PaperInputs in = RandomPaperInputs({1, 2, 64, 32}, {32, 64}, at::kHalf).To(cuda_, at::kHalf);
  in.lengths = at::tensor(std::vector<int64_t>{13, 51}).to(cuda_);
  PaperAttention("eva::causal_attention", in, 32, 8);
  std::string message;
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  try {
    PaperAttention("eva::causal_attention", in, 32, 8);
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  }
  graph.capture_end();
  EXPECT_THAT(message, HasSubstr("lengths is on cuda:0, must be on the CPU"));
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

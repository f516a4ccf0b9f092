// Loads the library as torch.ops.load_library does and calls it through the dispatcher.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <tuple>

#include "kernels/testing/golden_reader.h"
#include "kernels/torch_ops_signatures.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

class TorchOpsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(EVASERVE_TORCH_OPS, RTLD_NOW | RTLD_GLOBAL), nullptr) << dlerror();
  }

  template <typename Fn>
  static auto Op(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Fn>();
  }
  static at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& mu, const at::Tensor& phi, int64_t window,
                              int64_t chunk) {
    return Op<AttentionFn>("eva::attention").call(q, k, v, mu, phi, window, chunk, std::nullopt);
  }
  static std::tuple<at::Tensor, at::Tensor> Summarize(const at::Tensor& k, const at::Tensor& v,
                                                      const at::Tensor& mu, const at::Tensor& phi,
                                                      int64_t chunk) {
    return Op<SummarizeFn>("eva::summarize").call(k, v, mu, phi, chunk, std::nullopt);
  }
  // The message of the error that the call ends with.
  template <typename Fn>
  static std::string ErrorOf(Fn&& fn) {
    try {
      fn();
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "";
  }
};

at::Tensor ToTensor(const GoldenTensor& golden) {
  std::vector<float> values = golden.floats();
  return at::from_blob(values.data(), golden.shape).clone();
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0 : a.to(at::kFloat).sub(b).abs().max().item().toDouble();
}

TEST_F(TorchOpsTest, AgreesWithTheGoldenFiles) {
  if (!GoldenFile::Exists("evabyte_attn")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("evabyte_attn");
  for (const auto& c : file.cases()) {
    const std::string name = c.at("case");
    SCOPED_TRACE(name);
    const auto get = [&](const char* what) { return ToTensor(file.Get(name + "." + what)); };
    const auto tolerance = [&](const char* what) {
      return c.at("tol_fp32").at(what).get<double>();
    };
    const at::Tensor out =
        Attention(get("q"), get("k"), get("v"), get("mu"), get("phi"), c.at("W"), c.at("C"));
    EXPECT_LE(MaxDifference(out, get("out")), tolerance("out"));

    const auto [rfa_k, rfa_v] = Summarize(get("k"), get("v"), get("mu"), get("phi"), c.at("C"));
    ASSERT_EQ(rfa_k.sizes(), get("rfa_k").sizes());
    EXPECT_LE(MaxDifference(rfa_k, get("rfa_k")), tolerance("rfa_k"));
    EXPECT_LE(MaxDifference(rfa_v, get("rfa_v")), tolerance("rfa_v"));
  }
}

TEST_F(TorchOpsTest, AWindowThatCoversTheSequenceIsSoftmaxAttentionInBFloat16Too) {
  const at::Tensor q = at::randn({2, 3, 70, 24}), k = at::randn({2, 3, 70, 24});
  const at::Tensor v = at::randn({2, 3, 70, 24}), mu = at::randn({3, 24});
  const at::Tensor want = at::scaled_dot_product_attention(q, k, v, {}, 0.0, true);
  EXPECT_LE(MaxDifference(Attention(q, k, v, mu, mu, 128, 8), want), 1e-5);

  const auto round = [](const at::Tensor& x) { return x.to(at::kBFloat16); };
  const at::Tensor out = Attention(round(q), round(k), round(v), mu, mu, 128, 8);
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_LE(MaxDifference(out, want), 5e-2);
}

TEST_F(TorchOpsTest, LeavesItsInputsAlone) {
  const at::Tensor q = at::randn({1, 9, 2, 8}).transpose(1, 2), mu = at::randn({2, 8});
  const at::Tensor before = q.clone();
  Attention(q, q, q, mu, mu, 4, 2);
  EXPECT_TRUE(q.equal(before));
}

TEST_F(TorchOpsTest, NamesTheArgumentThatIsWrong) {
  const at::Tensor x = at::randn({1, 2, 9, 8}), mu = at::randn({2, 8});
  const at::Tensor half = x.to(at::kHalf), odd = at::randn({1, 2, 9, 12});
  const auto error = [&](const at::Tensor& q, const at::Tensor& v, const at::Tensor& m, int window,
                         int chunk) {
    return ErrorOf([&] { Attention(q, x, v, m, mu, window, chunk); });
  };
  EXPECT_EQ(error(x, x, mu, 4, 2), "");
  EXPECT_THAT(error(x.to(at::kBFloat16), x, mu, 4, 2), HasSubstr("q is BFloat16"));
  EXPECT_THAT(error(x, x.narrow(2, 0, 5), mu, 4, 2), HasSubstr("v is [1, 2, 5, 8]"));
  EXPECT_THAT(error(x, x, mu.narrow(0, 0, 1), 4, 2), HasSubstr("mu is [1, 8]"));
  EXPECT_THAT(error(x, x, mu, 5, 2), HasSubstr("window is 5"));
  EXPECT_THAT(error(x, x, mu, 4, 0), HasSubstr("chunk is 0"));
  EXPECT_THAT(ErrorOf([&] { Attention(half, half, half, mu, mu, 4, 2); }), HasSubstr("k is Half"));
  EXPECT_THAT(ErrorOf([&] { Summarize(odd, odd, mu, mu, 2); }), HasSubstr("head_dim of k is 12"));
}

}  // namespace
}  // namespace evaserve

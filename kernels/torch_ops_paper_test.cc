// The paper's attention in torch.ops.eva on the CPU, through the dispatcher. Against the published
// code: tests/python/evaserve_ops_test.py.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/torch_ops_signatures.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

struct Call {
  const char* name = "eva::window_attention";
  at::Tensor q, k, v;  // [batch, num_heads, tokens..., head_dim]
  int64_t window = 4;
  int64_t pieces = 4;  // num_landmarks, or a chunk's tokens
  std::optional<at::Tensor> lengths;
  std::optional<double> scale;
};

Call WindowCall(at::IntArrayRef sizes) {
  return {.q = at::randn(sizes), .k = at::randn(sizes), .v = at::randn(sizes)};
}
Call CausalCall(at::IntArrayRef sizes) {
  Call call = WindowCall(sizes);
  call.name = "eva::causal_attention";
  return call;
}

// What LibTorch's allocator gives to this thread while there is one of these.
class MemoryWatch {
 public:
  int64_t peak_bytes() const { return reports_->peak; }

 private:
  struct Reports : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
      peak = std::max(peak, used += bytes);
    }
    bool memoryProfilingEnabled() const override { return true; }

    int64_t used = 0, peak = 0;
  };

  const std::shared_ptr<Reports> reports_ = std::make_shared<Reports>();
  const c10::DebugInfoGuard guard_{c10::DebugInfoKind::PROFILER_STATE, reports_};
};

class TorchPaperCpuTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_NE(dlopen(EVASERVE_TORCH_OPS, RTLD_NOW | RTLD_GLOBAL), nullptr) << dlerror();
  }

  static at::Tensor Run(const Call& call) {
    const int64_t d = call.q.size(-1);
    const at::TensorOptions floats = call.q.options().dtype(at::kFloat);
    const std::vector<at::Tensor> map = {at::ones({d, d}, floats).div(d), at::ones({d}, floats)};
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow(call.name, "")
        .typed<WindowAttentionFn>()
        .call(call.q, call.k, call.v, call.window, call.pieces, map, map, std::nullopt,
              /*overlap=*/false, call.lengths, call.scale);
  }
  static std::string MessageOf(const Call& call) {
    try {
      Run(call);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "";
  }
};

TEST_F(TorchPaperCpuTest, ExpandedTensorsAreTakenAsTheirCopies) {
  for (const char* name : {"eva::window_attention", "eva::causal_attention"}) {
    // As they lie: [batch, tokens, num_heads, head_dim].
    const std::vector<int64_t> all[] = {{1, 1, 3, 8}, {1, 16, 3, 8}, {2, 1, 3, 8}, {2, 16, 1, 8}};
    for (const at::IntArrayRef sizes : all) {
      Call call{.name = name};
      for (at::Tensor* x : {&call.q, &call.k, &call.v}) {
        *x = at::randn(sizes).expand({2, 16, 3, 8}).transpose(1, 2);
      }
      Call copies = call;
      for (at::Tensor* x : {&copies.q, &copies.k, &copies.v}) *x = x->contiguous();
      EXPECT_EQ(MessageOf(call), "") << name << ", " << sizes;
      EXPECT_TRUE(Run(call).equal(Run(copies))) << name << ", " << sizes;
      call.v = copies.v;
      EXPECT_TRUE(Run(call).equal(Run(copies))) << name << ", " << sizes;
    }
  }
}

// A state for the longest sequence, for each, would be 1.4 GB here; states for all windows at once
// 0.5 GB.
TEST_F(TorchPaperCpuTest, MemoryGrowsWithTheTokensNotWithSequencesTimesTheLongest) {
  std::vector<int64_t> lengths(4000, 1);
  lengths.push_back(4192);
  Call call = CausalCall({1, 2, 8192, 8});
  call.window = 1024;
  call.pieces = 2;
  call.lengths = at::tensor(lengths);
  const MemoryWatch watch;
  const at::Tensor out = Run(call);
  EXPECT_GT(watch.peak_bytes(), out.nbytes());
  EXPECT_LT(watch.peak_bytes(), int64_t{80} << 20);

  // One sequence of each group of states.
  for (const auto& [token, count] : {std::pair<int64_t, int64_t>{0, 1}, {3999, 1}, {4000, 4192}}) {
    Call alone = call;
    for (at::Tensor* x : {&alone.q, &alone.k, &alone.v}) *x = x->narrow(2, token, count);
    alone.lengths.reset();
    EXPECT_TRUE(Run(alone).equal(out.narrow(2, token, count))) << token;
  }
}

TEST_F(TorchPaperCpuTest, LengthsMustMakeUpTheTokensAlsoIfThereAreNone) {
  for (Call call : {WindowCall({1, 2, 0, 8}), CausalCall({1, 2, 0, 8})}) {
    EXPECT_EQ(Run(call).size(2), 0);
    call.lengths = at::tensor({5}, at::kLong);
    EXPECT_THAT(MessageOf(call), HasSubstr("lengths has 5"));
    call.lengths = at::tensor(std::vector<int64_t>{});
    EXPECT_EQ(Run(call).size(2), 0);
  }
  EXPECT_EQ(Run(CausalCall({0, 2, 5, 8})).size(0), 0);
}

TEST_F(TorchPaperCpuTest, TheScaleIsPositiveAndFinite) {
  for (Call call : {WindowCall({1, 2, 16, 8}), CausalCall({1, 2, 16, 8})}) {
    for (const at::DeviceType device : {at::kCPU, at::kMeta}) {
      for (at::Tensor* x : {&call.q, &call.k, &call.v}) *x = x->to(device);
      call.scale = 0.5;
      EXPECT_EQ(MessageOf(call), "");
      for (const double scale : {0., -1., 1e-50, 1e50, double{INFINITY}, double{NAN}}) {
        call.scale = scale;
        EXPECT_THAT(MessageOf(call), HasSubstr("must be positive and finite")) << scale;
      }
    }
  }
}

}  // namespace
}  // namespace evaserve

#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/cuda/gpu_windows.h"
#include "kernels/cuda/testing/window_case.h"

namespace evaserve {

inline constexpr int kGap = 8;  // elements between rows of results

// A layer's tensors on the host; elements are bits of the type.
struct Tensors {
  WindowOptions options;
  std::vector<uint16_t> qkv;  // rows [q | k | v]
  int64_t stride = 0;
  WindowCase::Map map_q, map_k;
  float mu_scale = 0.5f;
  std::vector<float> bias;
  bool bias_is_shared = false;

  int64_t width() const { return int64_t{options.num_heads} * options.shape.head_dim; }
  int words() const { return SizeOf(options.shape.type) / 2; }
  int64_t num_tokens() const { return std::ssize(qkv) / words() / stride; }
};

struct Results {
  std::vector<uint16_t> k_bar, beta, out;
  std::vector<float> lse;
};

template <typename T>
GpuMemory Upload(Gpu& gpu, const std::vector<T>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  auto memory = gpu.Allocate(std::max<int64_t>(bytes, 16));
  EXPECT_TRUE(memory.ok()) << memory.status();
  EXPECT_TRUE(bytes == 0 || gpu.ToDevice(memory->as<void>(), values.data(), bytes).ok());
  return *std::move(memory);
}

template <typename T>
void Download(Gpu& gpu, const GpuMemory& memory, std::vector<T>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  const absl::Status status = gpu.ToHost(values.data(), memory.as<void>(), bytes);
  EXPECT_TRUE(status.ok()) << status;
}

class DeviceMap {
 public:
  DeviceMap(Gpu& gpu, const WindowCase::Map& map)
      : has_weight_(!map.weight.empty()),
        has_norm_(!map.norm_weight.empty()),
        weight_(Upload(gpu, map.weight)),
        bias_(Upload(gpu, map.bias)),
        norm_weight_(Upload(gpu, map.norm_weight)),
        norm_bias_(Upload(gpu, map.norm_bias)) {}

  CudaMap view() const {
    if (!has_weight_) return {};
    return {weight_.as<float>(), bias_.as<float>(), has_norm_ ? norm_weight_.as<float>() : nullptr,
            has_norm_ ? norm_bias_.as<float>() : nullptr};
  }

 private:
  const bool has_weight_, has_norm_;
  const GpuMemory weight_, bias_, norm_weight_, norm_bias_;
};

// A layer on the device, and its results, which are NaN at first.
class DeviceLayer {
 public:
  DeviceLayer(Gpu& gpu, const Tensors& tensors, int64_t landmark_elements)
      : gpu_(gpu),
        tensors_(tensors),
        windows_(tensors.options, gpu),
        map_q_(gpu, tensors.map_q),
        map_k_(gpu, tensors.map_k) {
    results_.k_bar.assign(std::max<int64_t>(landmark_elements, 8) * tensors.words(), 0xffff);
    results_.beta = results_.k_bar;
    results_.out.assign(tensors.num_tokens() * (tensors.width() + kGap) * tensors.words(), 0xffff);
    results_.lse.assign(tensors.num_tokens() * tensors.options.num_heads, NAN);
    qkv_ = Upload(gpu, tensors.qkv);
    bias_ = Upload(gpu, tensors.bias);
    k_bar_ = Upload(gpu, results_.k_bar);
    beta_ = Upload(gpu, results_.beta);
    out_ = Upload(gpu, results_.out);
    lse_ = Upload(gpu, results_.lse);
  }

  const GpuMemory& qkv() const { return qkv_; }

  LandmarksLayer landmarks() const { return landmarks(qkv_); }
  WindowLayer attend() const { return attend(qkv_); }

  void Run(const WindowPlan& plan) { Run(plan, landmarks(), attend()); }
  // With queries, keys and values of the sequences in their states.
  void RunSteps(const WindowPlan& plan, const GpuMemory& state) {
    Run(plan, landmarks(state), attend(state));
  }

  const Results& results() {
    Download(gpu_, k_bar_, results_.k_bar);
    Download(gpu_, beta_, results_.beta);
    Download(gpu_, out_, results_.out);
    Download(gpu_, lse_, results_.lse);
    return results_;
  }

 private:
  const char* Part(const GpuMemory& rows, int part) const {
    return rows.as<char>() + part * tensors_.width() * SizeOf(tensors_.options.shape.type);
  }
  LandmarksLayer landmarks(const GpuMemory& rows) const {
    LandmarksLayer layer;
    layer.q = Part(rows, 0);
    layer.k = Part(rows, 1);
    layer.v = Part(rows, 2);
    layer.stride = tensors_.stride;
    layer.map_q = map_q_.view();
    layer.map_k = map_k_.view();
    layer.mu_scale = tensors_.mu_scale;
    layer.k_bar = k_bar_.as<void>();
    layer.beta = beta_.as<void>();
    return layer;
  }
  WindowLayer attend(const GpuMemory& rows) const {
    WindowLayer layer;
    layer.q = Part(qkv_, 0);
    layer.k = Part(rows, 1);
    layer.v = Part(rows, 2);
    layer.q_stride = layer.kv_stride = tensors_.stride;
    layer.k_bar = k_bar_.as<void>();
    layer.beta = beta_.as<void>();
    layer.bias = tensors_.bias.empty() ? nullptr : bias_.as<float>();
    layer.bias_is_shared = tensors_.bias_is_shared;
    layer.out = out_.as<void>();
    layer.out_stride = tensors_.width() + kGap;
    layer.lse = lse_.as<float>();
    return layer;
  }
  void Run(const WindowPlan& plan, const LandmarksLayer& landmarks, const WindowLayer& attend) {
    for (const absl::Status& status :
         {windows_.Prepare(plan), windows_.Landmarks(landmarks), windows_.Attend(attend)}) {
      ASSERT_TRUE(status.ok()) << status;
    }
  }

  Gpu& gpu_;
  const Tensors& tensors_;
  GpuWindows windows_;
  const DeviceMap map_q_, map_k_;
  Results results_;
  GpuMemory qkv_, bias_, k_bar_, beta_, out_, lse_;
};

inline Tensors TensorsOf(WindowCase& test) {
  const WindowLayer layer = test.attend();
  return {test.options(), test.qkv,
          test.stride(),  test.map_q,
          test.map_k,     test.landmarks().mu_scale,
          test.bias,      layer.bias_is_shared};
}
// Tests of GpuWindows, on a device, or on the emulator where there is none: whichever the program
// is linked with. The emulator's memory ends where nobody may read on.
class GpuWindowsTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Gpu>> gpu = Gpu::Open(0);
    if (!gpu.ok()) GTEST_SKIP() << gpu.status();
    gpu_ = *std::move(gpu);
  }

  // Of a case, into the case.
  void Run(WindowCase& test) {
    ASSERT_EQ(test.out_stride(), test.width() + kGap);
    const Tensors tensors = TensorsOf(test);
    DeviceLayer layer(*gpu_, tensors, test.plan().landmark_elements);
    layer.Run(test.plan());
    const Results& results = layer.results();
    test.k_bar = results.k_bar;
    test.beta = results.beta;
    test.out = results.out;
    test.lse = results.lse;
  }

  std::unique_ptr<Gpu> gpu_;
};

constexpr double ToleranceOf(DType type) {
  return type == DType::kFloat32 ? 5e-6 : type == DType::kBFloat16 ? 4e-3 : 6e-4;
}
inline constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

}  // namespace evaserve

// torch.ops.eva for CUDA tensors, on the current stream: what torch_ops_gpu.h and
// torch_ops_paper_gpu.h say, on PyTorch's devices.

#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "kernels/torch_ops_gpu.h"
#include "kernels/torch_ops_paper_gpu.h"

namespace evaserve {
namespace {

int Attribute(cudaDeviceAttr attribute, c10::DeviceIndex device) {
  int value = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

TorchGpuOps::Options OptionsOf(c10::DeviceIndex device) {
  return {.compute_capability = Attribute(cudaDevAttrComputeCapabilityMajor, device) * 10 +
                                Attribute(cudaDevAttrComputeCapabilityMinor, device),
          .num_multiprocessors = Attribute(cudaDevAttrMultiProcessorCount, device)};
}

struct DeviceOps {
  explicit DeviceOps(c10::DeviceIndex device) : eva(OptionsOf(device)) {}

  TorchGpuOps eva;
  TorchPaperOps paper;
};

// Of the current device. They are never destroyed: at exit the driver may be gone before.
DeviceOps& CurrentOps() {
  static auto& mutex = *new std::mutex;
  static auto& ops = *new std::map<c10::DeviceIndex, DeviceOps>;
  const c10::DeviceIndex device = c10::cuda::current_device();
  const std::lock_guard lock(mutex);
  return ops.try_emplace(device, device).first->second;
}

TorchGpuStream CurrentStream() {
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  return {.stream = stream.stream(),
          .of_libtorch = stream.unwrap(),
          .is_capturing =
              c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None};
}

c10::cuda::CUDAGuard GuardOf(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK(tensor.is_cuda(), name, " is on ", tensor.device(),
              ", another tensor is on a CUDA device");
  return c10::cuda::CUDAGuard(tensor.device());
}

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& mu, const at::Tensor& phi, int64_t window, int64_t chunk,
                     std::optional<double> scale) {
  const c10::cuda::CUDAGuard guard = GuardOf(k, "k");
  return CurrentOps().eva.Attention({q, k, v, mu, phi, window, chunk, scale}, CurrentStream());
}

std::tuple<at::Tensor, at::Tensor> Summarize(const at::Tensor& k, const at::Tensor& v,
                                             const at::Tensor& mu, const at::Tensor& phi,
                                             int64_t chunk, std::optional<double> scale) {
  const c10::cuda::CUDAGuard guard = GuardOf(k, "k");
  return CurrentOps().eva.Summarize(
      {.k = k, .v = v, .mu = mu, .phi = phi, .chunk = chunk, .scale = scale}, CurrentStream());
}

at::Tensor WindowAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t window, int64_t num_landmarks, at::TensorList map_q,
                           at::TensorList map_k, const std::optional<at::Tensor>& bias,
                           bool overlap, const std::optional<at::Tensor>& lengths,
                           std::optional<double> scale) {
  const c10::cuda::CUDAGuard guard = GuardOf(q, "q");
  return CurrentOps().paper.WindowAttention({.q = q,
                                             .k = k,
                                             .v = v,
                                             .window = window,
                                             .num_landmarks = num_landmarks,
                                             .map_q = map_q.vec(),
                                             .map_k = map_k.vec(),
                                             .bias = bias,
                                             .overlap = overlap,
                                             .lengths = lengths,
                                             .scale = scale},
                                            CurrentStream());
}

at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t window, int64_t chunk, at::TensorList map_q,
                           at::TensorList map_k, const std::optional<at::Tensor>& bias,
                           bool overlap, const std::optional<at::Tensor>& lengths,
                           std::optional<double> scale) {
  const c10::cuda::CUDAGuard guard = GuardOf(q, "q");
  return CurrentOps().paper.CausalAttention({.q = q,
                                             .k = k,
                                             .v = v,
                                             .window = window,
                                             .chunk = chunk,
                                             .map_q = map_q.vec(),
                                             .map_k = map_k.vec(),
                                             .bias = bias,
                                             .overlap = overlap,
                                             .lengths = lengths,
                                             .scale = scale},
                                            CurrentStream());
}

TORCH_LIBRARY_IMPL(eva, CUDA, m) {
  m.impl("attention", Attention);
  m.impl("summarize", Summarize);
  m.impl("window_attention", WindowAttention);
  m.impl("causal_attention", CausalAttention);
}

}  // namespace
}  // namespace evaserve

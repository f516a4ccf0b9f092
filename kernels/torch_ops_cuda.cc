// torch.ops.eva for CUDA tensors, on the current stream: what torch_ops_gpu.h says, on PyTorch's
// devices.

#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "kernels/torch_ops_gpu.h"

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

// Of the current device. They are never destroyed: at exit the driver may be gone before.
TorchGpuOps& CurrentOps() {
  static auto& mutex = *new std::mutex;
  static auto& ops = *new std::map<c10::DeviceIndex, TorchGpuOps>;
  const c10::DeviceIndex device = c10::cuda::current_device();
  const std::lock_guard lock(mutex);
  const auto found = ops.find(device);
  return found != ops.end() ? found->second
                            : ops.try_emplace(device, OptionsOf(device)).first->second;
}

TorchGpuStream CurrentStream() {
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  return {.stream = stream.stream(),
          .of_libtorch = stream.unwrap(),
          .is_capturing =
              c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None};
}

c10::cuda::CUDAGuard GuardOf(const at::Tensor& k) {
  TORCH_CHECK(k.is_cuda(), "k is on ", k.device(), ", another tensor is on a CUDA device");
  return c10::cuda::CUDAGuard(k.device());
}

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& mu, const at::Tensor& phi, int64_t window, int64_t chunk,
                     std::optional<double> scale) {
  const c10::cuda::CUDAGuard guard = GuardOf(k);
  return CurrentOps().Attention({q, k, v, mu, phi, window, chunk, scale}, CurrentStream());
}

std::tuple<at::Tensor, at::Tensor> Summarize(const at::Tensor& k, const at::Tensor& v,
                                             const at::Tensor& mu, const at::Tensor& phi,
                                             int64_t chunk, std::optional<double> scale) {
  const c10::cuda::CUDAGuard guard = GuardOf(k);
  return CurrentOps().Summarize(
      {.k = k, .v = v, .mu = mu, .phi = phi, .chunk = chunk, .scale = scale}, CurrentStream());
}

TORCH_LIBRARY_IMPL(eva, CUDA, m) {
  m.impl("attention", Attention);
  m.impl("summarize", Summarize);
}

}  // namespace
}  // namespace evaserve

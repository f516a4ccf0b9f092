#pragma once

// What the operations of torch.ops.eva on a device share in reading tensors.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstdint>
#include <span>

#include "kernels/dtype.h"

namespace evaserve {

// Of a tensor whose type was checked.
inline DType TypeOf(const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  return type == at::kFloat      ? DType::kFloat32
         : type == at::kBFloat16 ? DType::kBFloat16
                                 : DType::kFloat16;
}

inline bool IsAligned(const at::Tensor& tensor) {
  constexpr uintptr_t kAlignment = 16;  // what the kernels read at once
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % kAlignment == 0;
}

inline at::Tensor Floats(const at::Tensor& x) {
  const at::Tensor floats = x.to(at::kFloat).contiguous();
  return IsAligned(floats) ? floats : floats.clone();
}

// Waits for the device.
inline at::Tensor UploadBytes(std::span<const char> host, const at::TensorOptions& options) {
  at::Tensor bytes = at::empty({std::ssize(host)}, options.dtype(at::kByte));
  bytes.copy_(at::from_blob(const_cast<char*>(host.data()), bytes.sizes(), at::kByte));
  return bytes;
}

}  // namespace evaserve

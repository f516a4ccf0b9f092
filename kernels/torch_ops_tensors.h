#pragma once

// What the operations of torch.ops.eva share in reading tensors.

#include <ATen/TensorUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "kernels/dtype.h"

namespace evaserve {

inline void CheckOk(const absl::Status& status) {
  TORCH_CHECK(status.ok(), std::string(status.message()));
}

inline c10::SymBool AreEqual(c10::SymIntArrayRef a, c10::SymIntArrayRef b) {
  c10::SymBool equal = a.size() == b.size();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    equal = equal.sym_and(a[i].sym_eq(b[i]));
  return equal;
}

// Of a tensor whose type was checked.
inline DType TypeOf(const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  return type == at::kFloat      ? DType::kFloat32
         : type == at::kBFloat16 ? DType::kBFloat16
                                 : DType::kFloat16;
}

inline bool IsAligned(const at::Tensor& tensor) {
  constexpr uintptr_t kAlignment = 16;  // what a device's kernels read at once
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

// [batch, num_heads, tokens..., head_dim] as [batch, tokens..., num_heads, head_dim], a view, and
// back.
inline at::Tensor ToRows(const at::Tensor& x) { return x.movedim(1, -2); }
inline at::Tensor FromRows(const at::Tensor& rows) { return rows.movedim(-2, 1); }

// The tokens of q, k and v as rows at one distance: where they lie if the kernels can read them
// there (parts of one projection, usually), otherwise copies.
class TorchRows {
 public:
  // What the kernels read.
  struct Demands {
    at::ScalarType type = at::kFloat;
    bool is_aligned = false;  // first elements as IsAligned(), strides as eight of the type
  };

  TorchRows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Demands& demands)
      : rows_{ToRows(q), ToRows(k), ToRows(v)} {
    const std::optional<int64_t> strides[] = {
        StrideOf(rows_[0], demands), StrideOf(rows_[1], demands), StrideOf(rows_[2], demands)};
    if (strides[0] && strides[0] == strides[1] && strides[0] == strides[2]) {
      stride_ = *strides[0];
      return;
    }
    stride_ = width();
    for (at::Tensor& rows : rows_) {
      rows = at::empty(rows.sizes(), rows.options().dtype(demands.type)).copy_(rows);
    }
  }

  const at::Tensor& q() const { return rows_[0]; }
  const at::Tensor& k() const { return rows_[1]; }
  const at::Tensor& v() const { return rows_[2]; }
  int64_t stride() const { return stride_; }  // elements between two tokens
  int64_t width() const { return rows_[0].size(-2) * rows_[0].size(-1); }
  c10::IntArrayRef sizes() const { return rows_[0].sizes(); }

 private:
  // Nothing if the kernels cannot read them so.
  static std::optional<int64_t> StrideOf(const at::Tensor& rows, const Demands& demands) {
    if (rows.scalar_type() != demands.type) return std::nullopt;
    const int64_t width = rows.size(-2) * rows.size(-1);
    const auto strides = at::detail::computeStride(rows.sizes(), rows.strides(),
                                                   at::DimVector{rows.numel() / width, width});
    if (!strides || (*strides)[1] != 1) return std::nullopt;
    // What the stride of a lone token is does not matter, if it is one that the kernels take.
    const int64_t stride = rows.numel() == width ? width : (*strides)[0];
    if (stride < width) return std::nullopt;  // expanded: one token in place of many
    if (demands.is_aligned && (stride % 8 != 0 || !IsAligned(rows))) return std::nullopt;
    return stride;
  }

  at::Tensor rows_[3];
  int64_t stride_ = 0;
};

}  // namespace evaserve

#include "kernels/torch_ops_check.h"

#include "kernels/page_layout.h"
#include "kernels/torch_ops_tensors.h"

namespace evaserve {
namespace {

void CheckDevice(const at::Tensor& tensor, const char* name, const at::Tensor& k) {
  TORCH_CHECK(tensor.device() == k.device(), name, " is on ", tensor.device(), ", k is on ",
              k.device());
}

void CheckLikeK(const at::Tensor& tensor, const char* name, const at::Tensor& k) {
  CheckDevice(tensor, name, k);
  TORCH_CHECK(tensor.scalar_type() == k.scalar_type(), name, " is ", tensor.scalar_type(),
              ", k is ", k.scalar_type());
  TORCH_SYM_CHECK(AreEqual(tensor.sym_sizes(), k.sym_sizes()), name, " is ", tensor.sym_sizes(),
                  ", must be ", k.sym_sizes(), " as k");
}

void CheckPerHead(const at::Tensor& tensor, const char* name, const at::Tensor& k) {
  CheckDevice(tensor, name, k);
  const c10::SymInt per_head[] = {k.sym_size(1), k.sym_size(3)};
  TORCH_SYM_CHECK(AreEqual(tensor.sym_sizes(), per_head), name, " is ", tensor.sym_sizes(),
                  ", must be [num_heads, head_dim] = ", c10::SymIntArrayRef(per_head));
}

}  // namespace

void CheckSummarize(const at::Tensor& k, const at::Tensor& v, const at::Tensor& mu,
                    const at::Tensor& phi, int64_t chunk) {
  TORCH_CHECK(k.dim() == 4, "k has ", k.dim(), " dimensions, must have 4: [batch, num_heads, ",
              "seq_len, head_dim]");
  TORCH_CHECK(k.scalar_type() == at::kFloat || k.scalar_type() == at::kBFloat16 ||
                  k.scalar_type() == at::kHalf,
              "k is ", k.scalar_type(), ", must be float32, bfloat16 or float16");
  const c10::SymInt num_heads = k.sym_size(1), head_dim = k.sym_size(3);
  TORCH_SYM_CHECK(num_heads.sym_gt(0), "k has no heads");
  TORCH_SYM_CHECK(
      head_dim.sym_gt(0).sym_and((head_dim % 8).sym_eq(0)).sym_and(head_dim.sym_le(kMaxHeadDim)),
      "head_dim of k is ", head_dim, ", must be a multiple of 8 in [8, ", kMaxHeadDim, "]");
  CheckLikeK(v, "v", k);
  CheckPerHead(mu, "mu", k);
  CheckPerHead(phi, "phi", k);
  TORCH_CHECK(chunk > 0, "chunk is ", chunk, ", must be positive");
}

void CheckAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& mu, const at::Tensor& phi, int64_t window, int64_t chunk) {
  CheckSummarize(k, v, mu, phi, chunk);
  CheckLikeK(q, "q", k);
  TORCH_CHECK(window > 0 && window % chunk == 0, "window is ", window,
              ", must be a positive multiple of chunk = ", chunk);
}

}  // namespace evaserve

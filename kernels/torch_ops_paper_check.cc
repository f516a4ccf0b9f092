#include "kernels/torch_ops_paper_check.h"

#include <limits>

#include "kernels/torch_ops_tensors.h"

namespace evaserve {
namespace {

constexpr int64_t kMaxSide = 1 << 20;  // windows, chunks and landmarks fit an int by far
constexpr const char* kMapParts[] = {".weight", ".bias", ".norm_weight", ".norm_bias"};

void CheckShape(const at::Tensor& tensor, const std::string& name, const at::Tensor& q,
                c10::SymIntArrayRef shape, const char* meaning) {
  TORCH_CHECK(tensor.device() == q.device(), name, " is on ", tensor.device(), ", q is on ",
              q.device());
  TORCH_CHECK(tensor.is_floating_point(), name, " is ", tensor.scalar_type(),
              ", must be of floating point");
  TORCH_SYM_CHECK(AreEqual(tensor.sym_sizes(), shape), name, " is ", tensor.sym_sizes(),
                  ", must be ", meaning, " = ", shape);
}

// A linear layer, or a linear layer and a norm.
void CheckMap(at::TensorList map, const char* name, const at::Tensor& q) {
  TORCH_CHECK(map.size() == 2 || map.size() == 4, name, " has ", map.size(),
              " tensors, must be [weight, bias] or [weight, bias, norm_weight, norm_bias]");
  const c10::SymInt head_dim = q.sym_size(-1);
  const c10::SymInt matrix[] = {head_dim, head_dim};
  for (size_t i = 0; i < map.size(); ++i) {
    const c10::SymIntArrayRef all = matrix;
    CheckShape(map[i], std::string(name) + kMapParts[i], q, i == 0 ? all : all.slice(0, 1),
               i == 0 ? "[head_dim, head_dim]" : "[head_dim]");
  }
}

void CheckLikeQ(const at::Tensor& tensor, const char* name, const at::Tensor& q) {
  TORCH_CHECK(tensor.scalar_type() == q.scalar_type(), name, " is ", tensor.scalar_type(),
              ", q is ", q.scalar_type());
  CheckShape(tensor, name, q, q.sym_sizes(), "as q");
}

void CheckNumber(const char* name, int64_t value) {
  TORCH_CHECK(value > 0 && value <= kMaxSide, name, " is ", value, ", must be in [1, ", kMaxSide,
              "]");
}

void CheckLengths(const std::optional<at::Tensor>& lengths, const at::Tensor& q) {
  if (!lengths) return;
  TORCH_CHECK(lengths->scalar_type() == at::kLong && lengths->dim() == 1, "lengths is ",
              lengths->scalar_type(), " with ", lengths->dim(),
              " dimensions, must be int64 [sequences]");
  TORCH_CHECK(q.dim() == 4, "lengths is for sequences, q has ", q.dim(), " dimensions");
  TORCH_SYM_CHECK(q.sym_size(0).sym_eq(1), "batch of q is ", q.sym_size(0),
                  ", must be 1 with lengths: the sequences lie one after the other");
}

// A bias is divided by it on a device.
void CheckScale(std::optional<double> scale) {
  using Limits = std::numeric_limits<float>;
  TORCH_CHECK(!scale || (*scale >= Limits::min() && *scale <= Limits::max()), "scale is ", *scale,
              ", must be positive and finite in float32");
}

void CheckArguments(const PaperAttentionTensors& t) {
  TORCH_CHECK(t.q.scalar_type() == at::kFloat || t.q.scalar_type() == at::kBFloat16 ||
                  t.q.scalar_type() == at::kHalf,
              "q is ", t.q.scalar_type(), ", must be float32, bfloat16 or float16");
  const c10::SymInt num_heads = t.q.sym_size(1), head_dim = t.q.sym_size(-1);
  TORCH_SYM_CHECK(num_heads.sym_gt(0), "q has no heads");
  TORCH_SYM_CHECK(
      head_dim.sym_gt(0).sym_and((head_dim % 4).sym_eq(0)).sym_and(head_dim.sym_le(kMaxEvaHeadDim)),
      "head_dim of q is ", head_dim, ", must be a multiple of 4 in [4, ", kMaxEvaHeadDim, "]");
  CheckLikeQ(t.k, "k", t.q);
  CheckLikeQ(t.v, "v", t.q);
  if (!t.map_q.empty()) CheckMap(t.map_q, "map_q", t.q);
  CheckMap(t.map_k, "map_k", t.q);
  CheckLengths(t.lengths, t.q);
  CheckScale(t.scale);
}

}  // namespace

RegionShape RegionShapeOf(const at::Tensor& q, int64_t window, int64_t num_landmarks,
                          bool overlap) {
  RegionShape shape;
  shape.is_2d = q.dim() == 5;
  if (shape.is_2d) shape.height = static_cast<int>(q.size(2));
  shape.width = static_cast<int>(q.size(-2));
  shape.window = static_cast<int>(window);
  shape.num_landmarks = static_cast<int>(num_landmarks);
  shape.overlap = overlap;
  return shape;
}

void CheckWindowAttention(const PaperAttentionTensors& tensors, int64_t window,
                          int64_t num_landmarks, bool overlap) {
  const at::Tensor& q = tensors.q;
  TORCH_CHECK(q.dim() == 4 || q.dim() == 5, "q has ", q.dim(),
              " dimensions, must have 4: [batch, num_heads, seq_len, head_dim], or 5: [batch, ",
              "num_heads, height, width, head_dim]");
  CheckArguments(tensors);
  CheckNumber("window", window);
  CheckNumber("num_landmarks", num_landmarks);
  if (!tensors.bias) return;
  RegionShape shape;
  shape.window = static_cast<int>(window);
  shape.overlap = overlap;
  const int64_t key_side = window + 2 * shape.extension();
  const bool is_2d = q.dim() == 5;
  const c10::SymInt want[] = {q.sym_size(1), is_2d ? window * window : window,
                              is_2d ? key_side * key_side : key_side};
  CheckShape(*tensors.bias, "bias", q, want, "[num_heads, places of a window, places of its keys]");
}

void CheckCausalAttention(const PaperAttentionTensors& tensors, int64_t window, int64_t chunk,
                          bool overlap) {
  const at::Tensor& q = tensors.q;
  TORCH_CHECK(q.dim() == 4, "q has ", q.dim(), " dimensions, must have 4: [batch, num_heads, ",
              "seq_len, head_dim]");
  CheckArguments(tensors);
  CheckNumber("chunk", chunk);
  TORCH_CHECK(window > 0 && window <= kMaxSide && window % chunk == 0, "window is ", window,
              ", must be a multiple of chunk = ", chunk, " in [1, ", kMaxSide, "]");
  if (!tensors.bias) return;
  const c10::SymInt want[] = {window, overlap ? 2 * window : window};
  CheckShape(*tensors.bias, "bias", q, want, "[window, keys of a window]");
}

}  // namespace evaserve

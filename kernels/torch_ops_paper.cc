// torch.ops.eva, the attention of the paper: "Efficient Attention via Control Variates", 2023
// (arXiv 2302.04542), in the form of its published code in eval mode. What torch_ops.cc says of
// loading, shapes and gradients holds here too.
//
//   eva::window_attention(q, k, v, window, num_landmarks, map_q, map_k, bias=None, *,
//                         overlap=False, lengths=None, scale=None) -> out
//     Not causal. q, k, v and out are [batch, num_heads, seq_len, head_dim], or [batch, num_heads,
//     height, width, head_dim] for a map: windows and chunks are squares then (regions.h). map_q
//     and map_k are the learned maps of a chunk's mean (landmarks.h): [weight, bias], or [weight,
//     bias, norm_weight, norm_bias]; map_q may also be []. bias is dense, [num_heads, places of a
//     window, places of its keys], in rows of a map.
//
//   eva::causal_attention(q, k, v, window, chunk, map_q, map_k, bias=None, *, overlap=False,
//                         lengths=None, scale=None) -> out
//     Causal, of whole sequences from their first token on. bias is [window, keys], for all heads
//     (causal_eva.h).
//
// With lengths, int64 [sequences], batch is 1 and seq_len their sum: the sequences lie one after
// the other, none is padded, and none depends on another. scale defaults to 1 / sqrt(head_dim).
// CPU: float32, bfloat16; head_dim is a multiple of 4 up to 128. CUDA: float16 too, and multiples
// of 8; lengths are read on the host, and must be there while a CUDA graph is captured. The memory
// of out is in the order of tokens, [batch, seq_len, num_heads, head_dim], so that joining the
// heads again costs nothing. Going backward through them is an error.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/causal_eva.h"
#include "kernels/landmarks.h"
#include "kernels/regions.h"
#include "kernels/torch_ops_check.h"
#include "kernels/torch_ops_paper_check.h"
#include "kernels/torch_ops_paper_items.h"
#include "kernels/torch_ops_tensors.h"
#include "kernels/torch_ops_worker_pool.h"
#include "kernels/window_attend.h"

namespace evaserve {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

void CheckType(const at::Tensor& q) {
  TORCH_CHECK(q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16, "q is ",
              q.scalar_type(), ", must be float32 or bfloat16 on the CPU");
}

at::Tensor Float(const at::Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

at::Tensor EmptyLike(const at::Tensor& q) {
  return FromRows(at::empty_symint(ToRows(q).sym_sizes(), q.options()));
}

// A checked map in the form of the kernels.
class TorchMap {
 public:
  explicit TorchMap(at::TensorList map) {
    if (map.empty()) return;
    for (const at::Tensor& tensor : map) parts_.push_back(Float(tensor));
    const WeightView view = {parts_[0].const_data_ptr<float>(), DType::kFloat32, parts_[0].size(0),
                             parts_[0].size(1)};
    weight_ = PackedWeight::Pack({&view, 1}, DType::kFloat32);
  }

  AdaptiveMap view() const {
    if (parts_.empty()) return {};
    const bool has_norm = parts_.size() == 4;
    return {&weight_, parts_[1].const_data_ptr<float>(),
            has_norm ? parts_[2].const_data_ptr<float>() : nullptr,
            has_norm ? parts_[3].const_data_ptr<float>() : nullptr};
  }

 private:
  std::vector<at::Tensor> parts_;
  PackedWeight weight_;
};

// What both kernels of window_attention are told.
struct Heads {
  Heads(const at::Tensor& q, std::optional<double> scale)
      : count(static_cast<int>(q.size(1))),
        dim(static_cast<int>(q.size(-1))),
        scale(ScaleOr(scale, dim)) {}

  int count, dim;
  float scale;
};

// k_bar and beta, [2, landmarks, num_heads, head_dim].
at::Tensor MakeLandmarks(const TorchRows& rows, const PaperItems& items, const Heads& heads,
                         at::TensorList map_q, at::TensorList map_k, WorkerPool& workers) {
  const TorchMap packed_q(map_q), packed_k(map_k);
  at::Tensor landmarks = at::empty({2, items.num_landmarks(), heads.count, heads.dim}, at::kFloat);
  CheckOk(LandmarksCpu({.items = items.items(),
                        .num_heads = heads.count,
                        .head_dim = heads.dim,
                        .scale = heads.scale,
                        .q = rows.q().const_data_ptr<float>(),
                        .k = rows.k().const_data_ptr<float>(),
                        .v = rows.v().const_data_ptr<float>(),
                        .stride = rows.stride(),
                        .map_q = packed_q.view(),
                        .map_k = packed_k.view(),
                        .mu_scale = 0.5f,
                        .k_bar = landmarks.data_ptr<float>(),
                        .beta = landmarks.data_ptr<float>() + landmarks.numel() / 2},
                       workers));
  return landmarks;
}

// A dense bias in float32, or an undefined tensor.
at::Tensor DenseBias(const OptionalTensor& bias) { return bias ? Float(*bias) : at::Tensor(); }
const float* DataOf(const at::Tensor& bias) {
  return bias.defined() ? bias.const_data_ptr<float>() : nullptr;
}

at::Tensor WindowAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t window, int64_t num_landmarks, at::TensorList map_q,
                           at::TensorList map_k, const OptionalTensor& bias, bool overlap,
                           const OptionalTensor& lengths, std::optional<double> scale) {
  CheckWindowAttention({q, k, v, map_q, map_k, bias, lengths, scale}, window, num_landmarks,
                       overlap);
  CheckType(q);
  const std::vector<int64_t> all = LengthsOf(q, lengths);
  if (q.numel() == 0) return EmptyLike(q);
  const PaperItems items(all, RegionShapeOf(q, window, num_landmarks, overlap));
  const TorchRows rows(q, k, v, {.type = at::kFloat});
  const Heads heads(q, scale);
  TorchWorkerPool workers;
  const at::Tensor landmarks = MakeLandmarks(rows, items, heads, map_q, map_k, workers);
  const at::Tensor dense_bias = DenseBias(bias);
  const at::Tensor out = at::empty(rows.sizes(), at::kFloat);
  CheckOk(WindowAttendCpu({.items = items.items(),
                           .num_heads = heads.count,
                           .head_dim = heads.dim,
                           .scale = heads.scale,
                           .dtype = TypeOf(q),
                           .q = rows.q().const_data_ptr<float>(),
                           .k = rows.k().const_data_ptr<float>(),
                           .v = rows.v().const_data_ptr<float>(),
                           .stride = rows.stride(),
                           .k_bar = landmarks.const_data_ptr<float>(),
                           .beta = landmarks.const_data_ptr<float>() + landmarks.numel() / 2,
                           .bias = DataOf(dense_bias),
                           .out = out.data_ptr<float>(),
                           .out_stride = int64_t{heads.count} * heads.dim},
                          workers));
  return FromRows(out.to(q.scalar_type()));
}

// The states of as many of the next sequences as fit some memory, of one at least: sequences begin
// and end within one call, so the memory can then serve others. A state is made for a window, and
// 10,000 words may come as 10,000 sequences.
class CausalStates {
 public:
  CausalStates(std::span<const int64_t> lengths, int64_t token, const CausalEvaShape& shape,
               int64_t max_floats)
      : shape_(shape) {
    int64_t floats = 0;
    size_t count = 0;
    while (count < lengths.size()) {
      const int64_t more = SizeOf(lengths[count]);
      if (count > 0 && floats + more > max_floats) break;
      floats += more;
      ++count;
    }
    memory_ = at::empty({floats}, at::kFloat);
    float* next = memory_.data_ptr<float>();
    for (const int64_t length : lengths.first(count)) {
      sequences_.push_back(
          {Take(length, next), /*position=*/0, static_cast<int>(token), static_cast<int>(length)});
      token += length;
    }
  }

  std::span<const CausalEvaSequence> sequences() const { return sequences_; }

 private:
  int64_t Chunks(int64_t length) const { return length / shape_.chunk; }
  int64_t Rows(int64_t slots) const { return slots * shape_.num_heads * shape_.head_dim; }
  int64_t SizeOf(int64_t length) const {
    return Rows(2 * (shape_.num_keys() + Chunks(length)) + shape_.chunk);
  }

  CausalEvaState Take(int64_t length, float*& next) const {
    const auto take = [&](int64_t slots) { return std::exchange(next, next + Rows(slots)); };
    CausalEvaState state;
    state.keys = take(shape_.num_keys());
    state.values = take(shape_.num_keys());
    state.open_q = take(shape_.chunk);
    state.k_bar = take(Chunks(length));
    state.beta = take(Chunks(length));
    state.max_chunks = static_cast<int>(Chunks(length));
    return state;
  }

  const CausalEvaShape shape_;
  at::Tensor memory_;
  std::vector<CausalEvaSequence> sequences_;
};

// What q, k, v and the result take, or 64 MiB.
int64_t MaxStateFloats(const at::Tensor& q) {
  return std::max<int64_t>(4 * q.numel(), int64_t{1} << 24);
}

at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t window, int64_t chunk, at::TensorList map_q,
                           at::TensorList map_k, const OptionalTensor& bias, bool overlap,
                           const OptionalTensor& lengths, std::optional<double> scale) {
  CheckCausalAttention({q, k, v, map_q, map_k, bias, lengths, scale}, window, chunk, overlap);
  CheckType(q);
  const std::vector<int64_t> all = LengthsOf(q, lengths);
  if (q.numel() == 0) return EmptyLike(q);
  CausalEvaParams params;
  params.shape = {static_cast<int>(q.size(1)), static_cast<int>(q.size(3)),
                  static_cast<int>(window), static_cast<int>(chunk), overlap};
  const TorchRows rows(q, k, v, {.type = at::kFloat});
  const TorchMap packed_q(map_q), packed_k(map_k);
  const at::Tensor dense_bias = DenseBias(bias);
  const at::Tensor out = at::empty(rows.sizes(), at::kFloat);
  TorchWorkerPool workers;
  params.scale = ScaleOr(scale, q.size(3));
  params.dtype = TypeOf(q);
  params.q = rows.q().const_data_ptr<float>();
  params.k = rows.k().const_data_ptr<float>();
  params.v = rows.v().const_data_ptr<float>();
  params.stride = rows.stride();
  params.map_q = packed_q.view();
  params.map_k = packed_k.view();
  params.bias = DataOf(dense_bias);
  params.out = out.data_ptr<float>();
  params.out_stride = q.size(1) * q.size(3);
  int64_t token = 0;
  for (std::span<const int64_t> left = all; !left.empty();) {
    const CausalStates states(left, token, params.shape, MaxStateFloats(q));
    params.sequences = states.sequences();
    CheckOk(CausalEvaCpu(params, workers));
    for (const CausalEvaSequence& sequence : params.sequences) token += sequence.num_tokens;
    left = left.subspan(params.sequences.size());
  }
  return FromRows(out.to(q.scalar_type()));
}

at::Tensor WindowAttentionShape(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                int64_t window, int64_t num_landmarks, at::TensorList map_q,
                                at::TensorList map_k, const OptionalTensor& bias, bool overlap,
                                const OptionalTensor& lengths, std::optional<double> scale) {
  CheckWindowAttention({q, k, v, map_q, map_k, bias, lengths, scale}, window, num_landmarks,
                       overlap);
  // Whether there are whole windows and chunks is not asked of sizes that are symbols.
  if (!lengths && !q.unsafeGetTensorImpl()->has_symbolic_sizes_strides() && q.numel() > 0) {
    CheckOk(Validate(RegionShapeOf(q, window, num_landmarks, overlap)));
  }
  return EmptyLike(q);
}

at::Tensor CausalAttentionShape(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                int64_t window, int64_t chunk, at::TensorList map_q,
                                at::TensorList map_k, const OptionalTensor& bias, bool overlap,
                                const OptionalTensor& lengths, std::optional<double> scale) {
  CheckCausalAttention({q, k, v, map_q, map_k, bias, lengths, scale}, window, chunk, overlap);
  return EmptyLike(q);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(eva, m) {
  m.def(
      "window_attention(Tensor q, Tensor k, Tensor v, int window, int num_landmarks, "
      "Tensor[] map_q, Tensor[] map_k, Tensor? bias=None, *, bool overlap=False, "
      "Tensor? lengths=None, float? scale=None) -> Tensor");
  m.def(
      "causal_attention(Tensor q, Tensor k, Tensor v, int window, int chunk, Tensor[] map_q, "
      "Tensor[] map_k, Tensor? bias=None, *, bool overlap=False, Tensor? lengths=None, "
      "float? scale=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(eva, CPU, m) {
  m.impl("window_attention", WindowAttention);
  m.impl("causal_attention", CausalAttention);
}

TORCH_LIBRARY_IMPL(eva, Meta, m) {
  m.impl("window_attention", WindowAttentionShape);
  m.impl("causal_attention", CausalAttentionShape);
}

TORCH_LIBRARY_IMPL(eva, Autograd, m) {
  m.impl("window_attention", torch::autograd::autogradNotImplementedFallback());
  m.impl("causal_attention", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace evaserve

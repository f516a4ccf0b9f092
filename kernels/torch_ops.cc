// torch.ops.eva: the kernels for ordinary tensors of the CPU and, in a build with EVASERVE_CUDA, of
// CUDA devices. Load with torch.ops.load_library("libevaserve_torch_ops.so"). Shape functions are
// there for torch.export and AOTInductor. For inference: there are no gradients. Here are
// EvaByte's; torch_ops_paper.cc has those of the paper.
//
//   eva::attention(q, k, v, mu, phi, window, chunk, scale=None) -> out
//     Causal EVA attention of whole sequences from their first token on, as in EvaByte. q, k, v and
//     out are [batch, num_heads, seq_len, head_dim], rotated already; mu and phi are [num_heads,
//     head_dim]. window is a multiple of chunk. scale defaults to 1 / sqrt(head_dim). out is
//     contiguous.
//
//   eva::summarize(k, v, mu, phi, chunk, scale=None) -> (summary_k, summary_v)
//     One key and value per complete chunk, [batch, num_heads, seq_len // chunk, head_dim].
//
//              q, k, v                       head_dim                     chunk
//     CPU      float32, bfloat16             multiples of 8 up to 512     any
//     CUDA     float32, bfloat16, float16    32, 64, 96, 128              divisors of 128
//
// On CUDA they run on the current stream. A CUDA graph can have them after one call with the same
// shapes and numbers outside of it (torch_ops_gpu.h).

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "kernels/attend.h"
#include "kernels/store_slots.h"
#include "kernels/summarize.h"
#include "kernels/torch_ops_check.h"
#include "kernels/torch_ops_tensors.h"
#include "kernels/torch_ops_worker_pool.h"

namespace evaserve {
namespace {

void CheckType(const at::Tensor& k) {
  TORCH_CHECK(k.scalar_type() == at::kFloat || k.scalar_type() == at::kBFloat16, "k is ",
              k.scalar_type(), ", must be float32 or bfloat16 on the CPU");
}

// A float32 copy as rows of tokens: [batch, seq_len, num_heads, head_dim].
at::Tensor TokenRows(const at::Tensor& x) {
  const at::Tensor rows = x.transpose(1, 2);
  return at::empty(rows.sizes(), at::kFloat).copy_(rows);
}

std::vector<int32_t> Take(int& next, int64_t num_slots) {
  std::vector<int32_t> pages((num_slots + kPageSlots - 1) / kPageSlots);
  for (int32_t& page : pages) page = next++;
  return pages;
}

// The state of a batch of sequences of one length, and the kernels on it. All sequences take each
// step together.
class Batch {
 public:
  Batch(const TorchShape& shape, DType type, const at::Tensor& mu, const at::Tensor& phi,
        int64_t window, int64_t chunk, std::optional<double> scale)
      : shape_(shape),
        window_(std::min(window, shape.seq_len)),
        chunk_(chunk),
        scale_(ScaleOr(scale, shape.head_dim)),
        mu_(mu.to(at::kFloat).contiguous()),
        phi_(phi.to(at::kFloat).contiguous()),
        cos_(at::ones({window_, shape.head_dim / 2}, at::kFloat)),
        sin_(at::zeros_like(cos_)) {
    pages_.layout = {type, static_cast<int>(shape.num_heads), static_cast<int>(shape.head_dim)};
    for (int64_t b = 0; b < shape.batch; ++b) {
      window_pages_.push_back(Take(pages_.num_pages, window_));
      summary_pages_.push_back(Take(pages_.num_pages, shape.seq_len / chunk));
    }
    memory_ = at::empty({pages_.num_pages * pages_.layout.page_bytes()}, at::kByte);
    pages_.data = reinterpret_cast<std::byte*>(memory_.data_ptr<uint8_t>());
  }

  // Stores tokens [begin, begin + count) of every sequence as the window. Rows are [batch,
  // seq_len].
  void Store(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t begin,
             int64_t count) {
    std::vector<StoreSequence> sequences;
    for (int64_t b = 0; b < shape_.batch; ++b) {
      sequences.push_back({static_cast<int>(b * shape_.seq_len + begin), static_cast<int>(count),
                           window_pages_[b], /*slot_begin=*/0, /*position_begin=*/0});
    }
    StoreSlotsParams params;
    params.pages = pages_;
    // The tokens are rotated already: cos is 1 and sin is 0.
    params.rope = {cos_.data_ptr<float>(), sin_.data_ptr<float>(), static_cast<int>(window_)};
    params.q = q.data_ptr<float>();
    params.k = k.data_ptr<float>();
    params.v = v.data_ptr<float>();
    params.token_stride = width();
    params.sequences = sequences;
    CheckOk(StoreSlotsCpu(params, workers_));
  }

  void Attend(const at::Tensor& q, const at::Tensor& out, int64_t begin, int64_t count) {
    std::vector<AttendSequence> sequences;
    for (int64_t b = 0; b < shape_.batch; ++b) {
      sequences.push_back(
          {{summary_pages_[b], num_summaries_, window_pages_[b], static_cast<int>(count)},
           static_cast<int>(b * shape_.seq_len + begin),
           static_cast<int>(count),
           nullptr});
    }
    AttendParams params;
    params.pages = pages_;
    params.scale = scale_;
    params.q = q.data_ptr<float>();
    params.q_stride = width();
    params.out = out.data_ptr<float>();
    params.out_stride = width();
    params.sequences = sequences;
    CheckOk(AttendCpu(params, workers_));
  }

  // Folds the first `count` tokens of the window, a multiple of chunk.
  void Fold(int64_t count) {
    const int num_chunks = static_cast<int>(count / chunk_);
    std::vector<SummarizeSequence> sequences;
    for (int64_t b = 0; b < shape_.batch; ++b) {
      sequences.push_back({window_pages_[b], num_chunks, summary_pages_[b], num_summaries_});
    }
    SummarizeParams params;
    params.pages = pages_;
    params.chunk = static_cast<int>(chunk_);
    params.scale = scale_;
    params.mu = mu_.data_ptr<float>();
    params.phi = phi_.data_ptr<float>();
    params.sequences = sequences;
    CheckOk(SummarizeCpu(params, workers_));
    num_summaries_ += num_chunks;
  }

  // All summaries, [batch, num_heads, num_summaries, head_dim] in float32.
  at::Tensor Summaries(bool keys) const {
    at::Tensor all =
        at::empty({shape_.batch, shape_.num_heads, num_summaries_, shape_.head_dim}, at::kFloat);
    float* to = all.data_ptr<float>();
    const PageLayout& layout = pages_.layout;
    for (int64_t b = 0; b < shape_.batch; ++b) {
      for (int h = 0; h < shape_.num_heads; ++h) {
        for (int i = 0; i < num_summaries_; ++i) {
          const int page = summary_pages_[b][i / kPageSlots], slot = i % kPageSlots;
          for (int d = 0; d < shape_.head_dim; ++d) {
            *to++ = keys
                        ? LoadElement(pages_.keys(page, h), layout.dtype, layout.key_index(slot, d))
                        : LoadElement(pages_.values(page, h), layout.dtype,
                                      layout.value_index(slot, d));
          }
        }
      }
    }
    return all;
  }

 private:
  int64_t width() const { return shape_.num_heads * shape_.head_dim; }

  const TorchShape shape_;
  const int64_t window_, chunk_;
  const float scale_;
  const at::Tensor mu_, phi_;   // [num_heads, head_dim]
  const at::Tensor cos_, sin_;  // [window, head_dim / 2]
  std::vector<std::vector<int32_t>> window_pages_, summary_pages_;
  int num_summaries_ = 0;  // of each sequence
  at::Tensor memory_;
  PageStore pages_;
  TorchWorkerPool workers_;
};

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& mu, const at::Tensor& phi, int64_t window, int64_t chunk,
                     std::optional<double> scale) {
  CheckAttention(q, k, v, mu, phi, window, chunk);
  CheckType(k);
  const TorchShape shape(k);
  if (k.numel() == 0) return at::empty(q.sizes(), q.options());

  const at::Tensor q_rows = TokenRows(q), k_rows = TokenRows(k), v_rows = TokenRows(v);
  const at::Tensor out = at::empty_like(q_rows);
  Batch batch(shape, TypeOf(k), mu, phi, window, chunk, scale);
  for (int64_t begin = 0; begin < shape.seq_len; begin += window) {
    const int64_t count = std::min(window, shape.seq_len - begin);
    batch.Store(q_rows, k_rows, v_rows, begin, count);
    batch.Attend(q_rows, out, begin, count);
    if (count == window) batch.Fold(count);
  }
  return out.transpose(1, 2).to(q.scalar_type()).contiguous();
}

std::tuple<at::Tensor, at::Tensor> Summarize(const at::Tensor& k, const at::Tensor& v,
                                             const at::Tensor& mu, const at::Tensor& phi,
                                             int64_t chunk, std::optional<double> scale) {
  CheckSummarize(k, v, mu, phi, chunk);
  CheckType(k);
  const TorchShape shape(k);
  const int64_t count = shape.seq_len / chunk * chunk;
  Batch batch(shape, TypeOf(k), mu, phi, /*window=*/shape.seq_len, chunk, scale);
  if (shape.batch > 0 && count > 0) {
    const at::Tensor k_rows = TokenRows(k), v_rows = TokenRows(v);
    batch.Store(at::empty_like(k_rows).zero_(), k_rows, v_rows, 0, count);
    batch.Fold(count);
  }
  return {batch.Summaries(true).to(k.scalar_type()), batch.Summaries(false).to(k.scalar_type())};
}

at::Tensor AttentionShape(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& mu, const at::Tensor& phi, int64_t window,
                          int64_t chunk, std::optional<double>) {
  CheckAttention(q, k, v, mu, phi, window, chunk);
  return at::empty_symint(q.sym_sizes(), q.options());
}

std::tuple<at::Tensor, at::Tensor> SummarizeShape(const at::Tensor& k, const at::Tensor& v,
                                                  const at::Tensor& mu, const at::Tensor& phi,
                                                  int64_t chunk, std::optional<double>) {
  CheckSummarize(k, v, mu, phi, chunk);
  const c10::SymInt sizes[] = {k.sym_size(0), k.sym_size(1), k.sym_size(2) / chunk, k.sym_size(3)};
  return {at::empty_symint(sizes, k.options()), at::empty_symint(sizes, v.options())};
}

}  // namespace

TORCH_LIBRARY(eva, m) {
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor mu, Tensor phi, int window, int chunk, "
      "float? scale=None) -> Tensor");
  m.def(
      "summarize(Tensor k, Tensor v, Tensor mu, Tensor phi, int chunk, float? scale=None) -> "
      "(Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(eva, CPU, m) {
  m.impl("attention", Attention);
  m.impl("summarize", Summarize);
}

// Shapes alone, for tracing and export.
TORCH_LIBRARY_IMPL(eva, Meta, m) {
  m.impl("attention", AttentionShape);
  m.impl("summarize", SummarizeShape);
}

}  // namespace evaserve

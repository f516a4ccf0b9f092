#include "kernels/torch_ops_gpu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/page_image.h"
#include "kernels/cuda/step_plan.h"
#include "kernels/torch_ops_check.h"
#include "kernels/torch_ops_tensors.h"
#include "kernels/torch_ops_windows.h"

namespace evaserve {
namespace {

// Tokens as rows, [batch, seq_len, num_heads, head_dim].
at::Tensor CopyRows(const at::Tensor& x) {
  const at::Tensor rows = x.transpose(1, 2);
  return at::empty(rows.sizes(), rows.options()).copy_(rows);
}
// The same without a copy where it lies so already; to be read only.
at::Tensor Rows(const at::Tensor& x) {
  const at::Tensor rows = x.transpose(1, 2);
  return rows.is_contiguous() && IsAligned(rows) ? rows : CopyRows(x);
}

template <int kHeadDim>
int64_t ImageElement(DType type, int slot, int dim) {
  return type == DType::kFloat32 ? FloatPageImage<kHeadDim>::Offset(slot, dim) / 4
                                 : PageImage<kHeadDim>::Offset(slot, dim) / 2;
}
int64_t ImageElement(DType type, int head_dim, int slot, int dim) {
  switch (head_dim) {
    case 32:
      return ImageElement<32>(type, slot, dim);
    case 64:
      return ImageElement<64>(type, slot, dim);
    case 96:
      return ImageElement<96>(type, slot, dim);
    default:
      return ImageElement<128>(type, slot, dim);
  }
}

// Where the elements of [kCudaPageSlots, head_dim] lie in an image.
at::Tensor ImageElements(DType type, int head_dim) {
  at::Tensor elements = at::empty({kCudaPageSlots, head_dim}, at::kLong);
  auto* to = elements.mutable_data_ptr<int64_t>();
  for (int slot = 0; slot < kCudaPageSlots; ++slot) {
    for (int dim = 0; dim < head_dim; ++dim) *to++ = ImageElement(type, head_dim, slot, dim);
  }
  return elements.flatten();
}

}  // namespace

struct TorchGpuOps::Plan {
  StepPlan step;
  int num_pages = 0;
  int64_t summary_pages = 0;                     // of a sequence
  at::Tensor bytes, zeros, cos, image_elements;  // on the device

  std::vector<at::Tensor> tensors() const { return {bytes, zeros, cos, image_elements}; }
};

namespace {

// What a call has on the device for the time it takes.
struct CallMemory {
  at::Tensor q, k, v;  // rows
  at::Tensor mu, phi;
  at::Tensor pool;  // [num_pages, num_heads, keys and values, image]
  at::Tensor num_arrived, partials;

  int64_t width() const { return q.size(2) * q.size(3); }

  StepLayer Layer(const at::Tensor& cos, const at::Tensor& zeros) const {
    return {.pool = pool.mutable_data_ptr(),
            .q = q.mutable_data_ptr(),
            .k = k.const_data_ptr(),
            .v = v.const_data_ptr(),
            .stride = width(),
            .cos = cos.const_data_ptr<float>(),
            .sin = static_cast<const float*>(zeros.const_data_ptr()),
            .mu = mu.const_data_ptr<float>(),
            .phi = phi.const_data_ptr<float>()};
  }
};

CallMemory MakeMemory(const TorchEvaCall& call, int num_pages) {
  const TorchShape shape(call.k);
  return {.k = Rows(call.k),
          .v = Rows(call.v),
          .mu = Floats(call.mu),
          .phi = Floats(call.phi),
          .pool = at::empty({num_pages, shape.num_heads, 2, kCudaPageSlots * shape.head_dim},
                            call.k.options())};
}

}  // namespace

std::shared_ptr<const TorchGpuOps::Plan> TorchGpuOps::MakePlan(Op op,
                                                               const TorchEvaCall& call) const {
  const TorchShape shape(call.k);
  const GpuShape gpu_shape{TypeOf(call.k), static_cast<int>(shape.head_dim)};
  const bool is_attention = op == Op::kAttention;
  const TorchWindows windows(shape, {.window = is_attention ? call.window : shape.seq_len,
                                     .chunk = call.chunk,
                                     .all_summaries = !is_attention});
  absl::StatusOr<StepPlan> step =
      StepPlan::Make({.shape = gpu_shape,
                      .num_heads = static_cast<int>(shape.num_heads),
                      .chunk = static_cast<int>(std::min<int64_t>(call.chunk, INT32_MAX)),
                      .scale = ScaleOr(call.scale, shape.head_dim),
                      .compute_capability = options_.compute_capability,
                      .num_multiprocessors = options_.num_multiprocessors,
                      .num_narrow_blocks =
                          options_.num_multiprocessors * NarrowBlocksPerMultiprocessor(gpu_shape)},
                     windows.input(), windows.num_pages());
  CheckOk(step.status());

  const at::TensorOptions bytes = call.k.options().dtype(at::kByte);
  auto plan = std::make_shared<Plan>(Plan{.step = *std::move(step),
                                          .num_pages = windows.num_pages(),
                                          .summary_pages = windows.summary_pages()});
  plan->zeros = at::zeros({kZeroBytes}, bytes);
  plan->cos = at::ones({shape.head_dim / 2}, bytes.dtype(at::kFloat));
  if (!is_attention) {
    const at::Tensor elements = ImageElements(gpu_shape.type, gpu_shape.head_dim);
    plan->image_elements = at::empty(elements.sizes(), bytes.dtype(at::kLong)).copy_(elements);
  }
  // Last, since this waits for all of them: other streams may use the plan at once.
  plan->bytes = UploadBytes(plan->step.bytes(), bytes);
  return plan;
}

std::shared_ptr<const TorchGpuOps::Plan> TorchGpuOps::PlanOf(Op op, const TorchEvaCall& call,
                                                             const TorchGpuStream& stream) {
  const TorchShape shape(call.k);
  return plans_.Get({static_cast<int64_t>(op), static_cast<int64_t>(TypeOf(call.k)), shape.batch,
                     shape.num_heads, shape.seq_len, shape.head_dim, call.window, call.chunk,
                     std::bit_cast<int32_t>(ScaleOr(call.scale, shape.head_dim))},
                    stream, call.k, [&] { return MakePlan(op, call); });
}

at::Tensor TorchGpuOps::Attention(const TorchEvaCall& call, const TorchGpuStream& stream) {
  CheckAttention(call.q, call.k, call.v, call.mu, call.phi, call.window, call.chunk);
  if (call.k.numel() == 0) return at::empty(call.q.sizes(), call.q.options());
  const std::shared_ptr<const Plan> plan = PlanOf(Op::kAttention, call, stream);
  CallMemory memory = MakeMemory(call, plan->num_pages);
  memory.q = CopyRows(call.q);  // the kernel rotates it where it is
  memory.num_arrived = at::zeros({plan->step.num_arrived()}, call.k.options().dtype(at::kInt));
  memory.partials =
      at::empty({plan->step.num_partial_floats()}, call.k.options().dtype(at::kFloat));
  const at::Tensor out = at::empty(memory.q.sizes(), memory.q.options());

  const StepMemory step_memory{.plan = plan->bytes.const_data_ptr(),
                               .zeros = plan->zeros.const_data_ptr(),
                               .num_arrived = memory.num_arrived.mutable_data_ptr<int32_t>(),
                               .partials = memory.partials.mutable_data_ptr<float>()};
  const StepLayer layer = memory.Layer(plan->cos, plan->zeros);
  CheckOk(plan->step.Store(layer, step_memory, stream.stream));
  CheckOk(
      plan->step.Attend(layer, out.mutable_data_ptr(), memory.width(), step_memory, stream.stream));
  return out.transpose(1, 2).contiguous();
}

std::tuple<at::Tensor, at::Tensor> TorchGpuOps::Summarize(const TorchEvaCall& call,
                                                          const TorchGpuStream& stream) {
  CheckSummarize(call.k, call.v, call.mu, call.phi, call.chunk);
  const TorchShape shape(call.k);
  const int64_t num_summaries = shape.seq_len / call.chunk;
  if (shape.batch == 0 || num_summaries == 0) {
    const at::Tensor none =
        at::empty({shape.batch, shape.num_heads, num_summaries, shape.head_dim}, call.k.options());
    return {none, none.clone()};
  }
  const std::shared_ptr<const Plan> plan = PlanOf(Op::kSummarize, call, stream);
  CallMemory memory = MakeMemory(call, plan->num_pages);
  memory.q = at::empty(memory.k.sizes(), memory.k.options());  // is rotated, and that is all
  CheckOk(plan->step.Store(memory.Layer(plan->cos, plan->zeros),
                           {.plan = plan->bytes.const_data_ptr()}, stream.stream));

  const at::Tensor pages = memory.pool.narrow(0, 0, shape.batch * plan->summary_pages)
                               .index_select(3, plan->image_elements)
                               .view({shape.batch, plan->summary_pages, shape.num_heads, 2,
                                      kCudaPageSlots, shape.head_dim})
                               .permute({3, 0, 2, 1, 4, 5});
  const at::Tensor slots = pages.reshape(
      {2, shape.batch, shape.num_heads, plan->summary_pages * kCudaPageSlots, shape.head_dim});
  const at::Tensor summaries = slots.narrow(3, 0, num_summaries);
  return {summaries.select(0, 0).contiguous(), summaries.select(0, 1).contiguous()};
}

}  // namespace evaserve

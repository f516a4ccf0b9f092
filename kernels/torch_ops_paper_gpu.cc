#include "kernels/torch_ops_paper_gpu.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "kernels/cuda/launch_status.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/window_batch.h"
#include "kernels/torch_ops_check.h"
#include "kernels/torch_ops_paper_check.h"
#include "kernels/torch_ops_paper_items.h"
#include "kernels/torch_ops_tensors.h"

namespace evaserve {
namespace {

WindowOptions OptionsOf(const TorchPaperCall& call) {
  const int head_dim = static_cast<int>(call.q.size(-1));
  return {
      {TypeOf(call.q), head_dim}, static_cast<int>(call.q.size(1)), ScaleOr(call.scale, head_dim)};
}

// A checked map as the kernels read it.
class DeviceMap {
 public:
  explicit DeviceMap(const std::vector<at::Tensor>& map) {
    for (size_t i = 0; i < map.size(); ++i) parts_.push_back(Floats(i == 0 ? map[i].t() : map[i]));
  }

  CudaMap view() const {
    CudaMap map;
    const float** const to[] = {&map.weight, &map.bias, &map.norm_weight, &map.norm_bias};
    for (size_t i = 0; i < parts_.size(); ++i) *to[i] = parts_[i].const_data_ptr<float>();
    return map;
  }

 private:
  std::vector<at::Tensor> parts_;
};

bool IsCausal(const TorchPaperCall& call) { return call.chunk != 0; }

// `landmarks` is memory for k_bar and beta, one behind the other.
LandmarksLayer LandmarksOf(const TorchRows& rows, const DeviceMap& map_q, const DeviceMap& map_k,
                           const at::Tensor& landmarks) {
  LandmarksLayer layer;
  layer.q = rows.q().const_data_ptr();
  layer.k = rows.k().const_data_ptr();
  layer.v = rows.v().const_data_ptr();
  layer.stride = rows.stride();
  layer.map_q = map_q.view();
  layer.map_k = map_k.view();
  layer.k_bar = landmarks.select(0, 0).mutable_data_ptr();
  layer.beta = landmarks.select(0, 1).mutable_data_ptr();
  return layer;
}

WindowLayer AttendOf(const LandmarksLayer& landmarks, const at::Tensor& bias,
                     const at::Tensor& out) {
  WindowLayer layer;
  layer.q = landmarks.q;
  layer.k = landmarks.k;
  layer.v = landmarks.v;
  layer.q_stride = layer.kv_stride = landmarks.stride;
  layer.k_bar = landmarks.k_bar;
  layer.beta = landmarks.beta;
  layer.bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  layer.out = out.mutable_data_ptr();
  layer.out_stride = out.size(-2) * out.size(-1);
  return layer;
}

}  // namespace

struct TorchPaperOps::Plan {
  WindowBatch batch;
  int64_t landmark_room = 0;  // elements, in whole 16 bytes and never none
  at::Tensor bytes;           // on the device

  std::vector<at::Tensor> tensors() const { return {bytes}; }
};

std::shared_ptr<const TorchPaperOps::Plan> TorchPaperOps::MakePlan(
    const TorchPaperCall& call, const std::vector<int64_t>& lengths) {
  const WindowOptions options = OptionsOf(call);
  const auto make = [&]() -> absl::StatusOr<WindowPlan> {
    if (!IsCausal(call)) {
      const PaperItems items(lengths,
                             RegionShapeOf(call.q, call.window, call.num_landmarks, call.overlap));
      return PlanWindows(options, items.items());
    }
    const CausalEvaShape shape{options.num_heads, options.shape.head_dim,
                               static_cast<int>(call.window), static_cast<int>(call.chunk),
                               call.overlap};
    const std::vector<int> counts(lengths.begin(), lengths.end());
    return PlanCausal(options, shape, counts);
  };
  const absl::StatusOr<WindowPlan> plan = make();
  CheckOk(plan.status());
  const WindowBatch batch(options, *plan);
  // This waits: other streams may use the plan at once.
  const at::Tensor bytes = UploadBytes(batch.bytes(), call.q.options());
  return std::make_shared<Plan>(Plan{batch, std::max<int64_t>(plan->landmark_elements, 8), bytes});
}

std::shared_ptr<const TorchPaperOps::Plan> TorchPaperOps::PlanOf(
    const TorchPaperCall& call, const std::vector<int64_t>& lengths, const TorchGpuStream& stream) {
  std::vector<int64_t> key = {call.window,
                              call.num_landmarks,
                              call.chunk,
                              call.overlap,
                              static_cast<int64_t>(TypeOf(call.q)),
                              std::bit_cast<int32_t>(OptionsOf(call).scale),
                              call.q.dim()};
  key.insert(key.end(), call.q.sizes().begin(), call.q.sizes().end());
  if (call.lengths) key.insert(key.end(), lengths.begin(), lengths.end());
  return plans_.Get(std::move(key), stream, call.q, [&] { return MakePlan(call, lengths); });
}

at::Tensor TorchPaperOps::Run(const TorchPaperCall& call, const TorchGpuStream& stream) {
  TORCH_CHECK(!stream.is_capturing || !call.lengths || call.lengths->is_cpu(), "lengths is on ",
              call.lengths->device(), ", must be on the CPU while a CUDA graph is captured");
  const std::vector<int64_t> lengths = LengthsOf(call.q, call.lengths);
  if (call.q.numel() == 0) {
    return FromRows(at::empty(ToRows(call.q).sizes(), call.q.options()));
  }
  const std::shared_ptr<const Plan> plan = PlanOf(call, lengths, stream);
  const TorchRows rows(call.q, call.k, call.v, {.type = call.q.scalar_type(), .is_aligned = true});
  const DeviceMap map_q(call.map_q), map_k(call.map_k);
  const at::Tensor bias = call.bias ? Floats(*call.bias) : at::Tensor();
  const at::Tensor landmarks = at::empty({2, plan->landmark_room}, call.q.options()),
                   out = at::empty(rows.sizes(), call.q.options());

  LandmarksLayer landmarks_layer = LandmarksOf(rows, map_q, map_k, landmarks);
  landmarks_layer.mu_scale = IsCausal(call) ? 1.f : 0.5f;
  WindowLayer attend_layer = AttendOf(landmarks_layer, bias, out);
  attend_layer.bias_is_shared = IsCausal(call);
  const auto landmarks_args = plan->batch.Args(landmarks_layer, plan->bytes.const_data_ptr());
  const auto attend_args = plan->batch.Args(attend_layer, plan->bytes.const_data_ptr());
  CheckOk(landmarks_args.status());
  CheckOk(attend_args.status());
  const DType type = TypeOf(call.q);
  CheckOk(LaunchStatus(LaunchLandmarks(type, *landmarks_args, stream.stream)));
  CheckOk(LaunchStatus(LaunchWindowAttend(type, *attend_args, stream.stream)));
  return FromRows(out);
}

at::Tensor TorchPaperOps::WindowAttention(const TorchPaperCall& call,
                                          const TorchGpuStream& stream) {
  CheckWindowAttention(
      {call.q, call.k, call.v, call.map_q, call.map_k, call.bias, call.lengths, call.scale},
      call.window, call.num_landmarks, call.overlap);
  return Run(call, stream);
}

at::Tensor TorchPaperOps::CausalAttention(const TorchPaperCall& call,
                                          const TorchGpuStream& stream) {
  CheckCausalAttention(
      {call.q, call.k, call.v, call.map_q, call.map_k, call.bias, call.lengths, call.scale},
      call.window, call.chunk, call.overlap);
  return Run(call, stream);
}

}  // namespace evaserve

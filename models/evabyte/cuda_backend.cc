#include "models/evabyte/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr int64_t kFloat = sizeof(float);

absl::Status Refuse(const char* key, int64_t value, const char* allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("config.json: \"", key, "\" is ", value, "; allowed on a device: ", allowed));
}

absl::Status CheckConfig(const EvaByteConfig& config) {
  const int head_dim = config.head_dim();
  if (config.dtype == DType::kFloat32) {
    return absl::InvalidArgumentError("dtype is float32; allowed on a device: bfloat16, float16");
  }
  if (!IsCudaHeadDim(head_dim)) {
    return Refuse("hidden_size / num_attention_heads", head_dim, "32, 64, 96, 128");
  }
  if (kCudaPageSlots % config.chunk != 0) {
    return Refuse("chunk_size", config.chunk, "divisors of 128");
  }
  if (config.intermediate_size % 8 != 0) {
    return Refuse("intermediate_size", config.intermediate_size, "multiples of 8");
  }
  if (config.vocab_size % 8 != 0) return Refuse("vocab_size", config.vocab_size, "multiples of 8");
  return absl::OkStatus();
}

int64_t PageBytes(const EvaByteConfig& config) {
  return CudaPageBytes(config.num_heads, config.head_dim(), SizeOf(config.dtype));
}

}  // namespace

absl::StatusOr<std::unique_ptr<EvaByteCuda>> EvaByteCuda::Create(const EvaByteConfig& config,
                                                                 const EvaByteTensors& tensors,
                                                                 int64_t state_bytes,
                                                                 std::unique_ptr<Gpu> gpu) {
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;
  const absl::StatusOr<int> num_pages =
      NumPages(state_bytes, PageBytes(config) * config.num_layers);
  if (!num_pages.ok()) return num_pages.status();
  absl::StatusOr<EvaByteCudaWeights> weights = UploadEvaByteWeights(tensors, config.dtype, *gpu);
  if (!weights.ok()) return weights.status();
  std::unique_ptr<EvaByteCuda> backend(new EvaByteCuda(config, std::move(gpu), *num_pages));
  backend->weights_ = *std::move(weights);
  if (absl::Status status = backend->MakeState(*num_pages); !status.ok()) return status;
  return backend;
}

EvaByteCuda::EvaByteCuda(const EvaByteConfig& config, std::unique_ptr<Gpu> gpu, int num_pages)
    : config_(config),
      gpu_(std::move(gpu)),
      pages_({num_pages, kCudaPageSlots, PageBytes(config) * config.num_layers}),
      step_({.shape = {config.dtype, config.head_dim()},
             .num_heads = config.num_heads,
             .chunk = config.chunk,
             .scale = 1.f / std::sqrt(static_cast<float>(config.head_dim()))},
            *gpu_) {}

std::string EvaByteCuda::device() const {
  return absl::StrCat("cuda:", gpu_->info().index, " ", gpu_->info().name);
}

absl::Status EvaByteCuda::MakeState(int num_pages) {
  absl::StatusOr<GpuMemory> pool =
      gpu_->Allocate(num_pages * PageBytes(config_) * config_.num_layers);
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  const RopeTables rope({.head_dim = config_.head_dim(),
                         .theta = config_.rope_theta,
                         .num_positions = config_.max_positions,
                         .scaling = config_.rope_scaling,
                         .factor = config_.rope_factor,
                         .max_positions = config_.max_positions});
  const int64_t bytes = int64_t{config_.max_positions} * config_.head_dim() / 2 * kFloat;
  for (const auto& [from, to] :
       {std::pair(rope.table().cos, &cos_), std::pair(rope.table().sin, &sin_)}) {
    if (absl::Status status = Grow(*gpu_, bytes, *to); !status.ok()) return status;
    absl::Status status = gpu_->ToDevice(to->as<void>(), from, bytes);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status EvaByteCuda::MakeBuffers(int num_rows) {
  const int64_t rows = num_rows, hidden = config_.hidden_size, inter = config_.intermediate_size;
  const int64_t element = element_bytes();
  const struct {
    GpuMemory& memory;
    int64_t bytes;
  } buffers[] = {
      {row_numbers_, rows * int64_t{sizeof(int32_t)}},
      {residual_, rows * hidden * kFloat},
      {normed_, rows * hidden * element},
      {delta_, rows * hidden * element},
      {wide_, rows * std::max(3 * hidden, 2 * inter) * element},
      {narrow_, rows * std::max(hidden, inter) * element},
      {gathered_, rows * hidden * element},
  };
  for (const auto& [memory, bytes] : buffers) {
    if (absl::Status status = Grow(*gpu_, bytes, memory); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status EvaByteCuda::PrepareStep(const StepBatch& batch) {
  std::vector<CudaStoreSequence> stores;
  std::vector<int32_t> positions;
  for (size_t i = 0; i < batch.stores.size(); ++i) {
    const StoreSequence& store = batch.stores[i];
    const SlotList& slots = batch.attends[i].slots;
    stores.push_back({.token_begin = store.token_begin,
                      .num_tokens = store.num_tokens,
                      .window_pages = store.window_pages,
                      .slot_begin = store.slot_begin,
                      .summarize = true,
                      .summary_pages = slots.summary_pages,
                      .summary_begin = slots.num_summaries});
    for (int t = 0; t < store.num_tokens; ++t) positions.push_back(store.position_begin + t);
  }
  return step_.Prepare({.num_rows = batch.num_rows(),
                        .positions = positions,
                        .stores = stores,
                        .attends = batch.attends},
                       pages_.num_pages());
}

absl::Status EvaByteCuda::Embed(const StepBatch& batch) {
  const std::vector<int32_t> tokens(batch.tokens.begin(), batch.tokens.end());
  absl::Status status = gpu_->ToDevice(row_numbers_.as<void>(), tokens.data(),
                                       std::ssize(tokens) * int64_t{sizeof(int32_t)});
  if (!status.ok()) return status;
  return LaunchStatus(LaunchGatherRows({.from = weights_.embedding.as<void>(),
                                        .rows = row_numbers_.as<int32_t>(),
                                        .to = residual_.as<void>(),
                                        .row_bytes = config_.hidden_size * kFloat},
                                       batch.num_rows(), gpu_->stream()));
}

absl::Status EvaByteCuda::Run(const StepBatch& batch) {
  const int num_rows = batch.num_rows();
  if (absl::Status status = MakeBuffers(num_rows); !status.ok()) return status;
  if (absl::Status status = PrepareStep(batch); !status.ok()) return status;
  if (absl::Status status = Embed(batch); !status.ok()) return status;
  for (int i = 0; i < config_.num_layers; ++i) {
    if (absl::Status status = RunLayer(i, num_rows); !status.ok()) return status;
  }
  return Norm(weights_.final_norm, /*has_delta=*/true, num_rows);
}

absl::Status EvaByteCuda::RunLayer(int layer_index, int num_rows) {
  const EvaByteCudaWeights::Layer& layer = weights_.layers[layer_index];
  absl::Status status = Norm(layer.attention_norm, /*has_delta=*/layer_index > 0, num_rows);
  if (!status.ok()) return status;
  if (status = Attention(layer_index, num_rows); !status.ok()) return status;
  if (status = Norm(layer.mlp_norm, /*has_delta=*/true, num_rows); !status.ok()) return status;
  return Mlp(layer, num_rows);
}

absl::Status EvaByteCuda::Attention(int layer_index, int num_rows) {
  const EvaByteCudaWeights::Layer& layer = weights_.layers[layer_index];
  const int hidden = config_.hidden_size;
  absl::Status status = Multiply(normed_, layer.qkv, wide_, num_rows, hidden, 3 * hidden);
  if (!status.ok()) return status;
  auto* const q = wide_.as<char>();  // a row is [q | k | v]
  const GpuStep::Layer pages{
      .pool = pool_.as<char>() + int64_t{layer_index} * pages_.num_pages() * PageBytes(config_),
      .q = q,
      .k = q + hidden * element_bytes(),
      .v = q + 2 * hidden * element_bytes(),
      .stride = 3 * hidden,
      .cos = cos_.as<float>(),
      .sin = sin_.as<float>(),
      .mu = layer.mu.as<float>(),
      .phi = layer.phi.as<float>()};
  if (status = step_.Store(pages); !status.ok()) return status;
  if (status = step_.Attend(pages, narrow_.as<void>(), hidden); !status.ok()) return status;
  return Multiply(narrow_, layer.out, delta_, num_rows, hidden, hidden);
}

absl::Status EvaByteCuda::Mlp(const EvaByteCudaWeights::Layer& layer, int num_rows) {
  const int hidden = config_.hidden_size, inter = config_.intermediate_size;
  absl::Status status = Multiply(normed_, layer.gate_up, wide_, num_rows, hidden, 2 * inter);
  if (!status.ok()) return status;
  status = LaunchStatus(LaunchSwiGlu(config_.dtype,
                                     {.x = wide_.as<void>(),
                                      .x_stride = 2 * inter,
                                      .y = narrow_.as<void>(),
                                      .y_stride = inter,
                                      .rows = num_rows,
                                      .size = inter},
                                     gpu_->stream()));
  if (!status.ok()) return status;
  return Multiply(narrow_, layer.down, delta_, num_rows, inter, hidden);
}

absl::Status EvaByteCuda::Norm(const GpuMemory& weight, bool has_delta, int num_rows) {
  const int hidden = config_.hidden_size;
  return LaunchStatus(LaunchAddRmsNorm(config_.dtype,
                                       {.x = has_delta ? delta_.as<void>() : nullptr,
                                        .x_stride = hidden,
                                        .residual = residual_.as<float>(),
                                        .residual_stride = hidden,
                                        .weight = weight.as<float>(),
                                        .y = normed_.as<void>(),
                                        .y_stride = hidden,
                                        .size = hidden,
                                        .eps = config_.rms_norm_eps},
                                       num_rows, gpu_->stream()));
}

absl::Status EvaByteCuda::Multiply(const GpuMemory& x, const GpuMemory& weight, GpuMemory& y,
                                   int num_rows, int in, int out) {
  return gpu_->Multiply({.type = config_.dtype,
                         .x = x.as<void>(),
                         .x_stride = in,
                         .weight = weight.as<void>(),
                         .y = y.as<void>(),
                         .y_stride = out,
                         .rows = num_rows,
                         .in = in,
                         .out = out});
}

absl::StatusOr<EvaByteBackend::Outputs> EvaByteCuda::ComputeOutputs(std::span<const int> rows,
                                                                    int num_logit_rows,
                                                                    bool wants_hidden) {
  if (rows.empty()) return Outputs{};
  const int num_rows = static_cast<int>(rows.size());
  const int64_t hidden = config_.hidden_size;
  const std::vector<int32_t> numbers(rows.begin(), rows.end());
  absl::Status status =
      gpu_->ToDevice(row_numbers_.as<void>(), numbers.data(), num_rows * int64_t{sizeof(int32_t)});
  if (!status.ok()) return status;
  status = LaunchStatus(LaunchGatherRows({.from = normed_.as<void>(),
                                          .rows = row_numbers_.as<int32_t>(),
                                          .to = gathered_.as<void>(),
                                          .row_bytes = hidden * element_bytes()},
                                         num_rows, gpu_->stream()));
  if (!status.ok()) return status;
  logits_.resize(size_t(num_logit_rows) * config_.vocab_size);
  status = ComputeLogits(gathered_.as<void>(), num_logit_rows, /*num_heads=*/1, logits_.data());
  if (!status.ok()) return status;
  if (!wants_hidden) return Outputs{nullptr, logits_.data()};
  gathered_on_host_.resize(num_rows * hidden * element_bytes());
  status =
      gpu_->ToHost(gathered_on_host_.data(), gathered_.as<void>(), std::ssize(gathered_on_host_));
  if (!status.ok()) return status;
  hidden_.resize(num_rows * hidden);
  for (int64_t i = 0; i < std::ssize(hidden_); ++i) {
    hidden_[i] = LoadElement(gathered_on_host_.data(), config_.dtype, i);
  }
  return Outputs{hidden_.data(), logits_.data()};
}

absl::Status EvaByteCuda::ComputeAllLogits(int begin, int count, float* logits) {
  const int64_t row_bytes = config_.hidden_size * element_bytes();
  return ComputeLogits(gathered_.as<char>() + begin * row_bytes, count, config_.num_pred_heads,
                       logits);
}

absl::Status EvaByteCuda::ComputeLogits(const void* hidden, int num_rows, int num_heads,
                                        float* logits) {
  if (num_rows == 0) return absl::OkStatus();
  const int num_logits = num_heads * config_.vocab_size;
  const int64_t bytes = int64_t{num_rows} * num_logits * kFloat;
  if (absl::Status status = Grow(*gpu_, bytes, device_logits_); !status.ok()) return status;
  absl::Status status = gpu_->Multiply({.type = config_.dtype,
                                        .x = hidden,
                                        .x_stride = config_.hidden_size,
                                        .weight = weights_.lm_head.as<void>(),
                                        .y = device_logits_.as<void>(),
                                        .y_stride = num_logits,
                                        .y_is_float = true,
                                        .rows = num_rows,
                                        .in = config_.hidden_size,
                                        .out = num_logits});
  if (!status.ok()) return status;
  return gpu_->ToHost(logits, device_logits_.as<void>(), bytes);
}

}  // namespace evaserve

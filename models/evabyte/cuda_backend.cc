#include "models/evabyte/cuda_backend.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// Larger decoding steps are not bound by launches.
constexpr int kMostGraphRows = 64;

absl::Status Refuse(const char* key, int64_t value, const char* allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("config.json: \"", key, "\" is ", value, "; allowed on a device: ", allowed));
}

absl::Status CheckConfig(const EvaByteConfig& config) {
  const int head_dim = config.head_dim();
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

StepOptions StepOptionsOf(const EvaByteConfig& config) {
  return {.shape = {config.dtype, config.head_dim()},
          .num_heads = config.num_heads,
          .chunk = config.chunk,
          .scale = 1.f / std::sqrt(static_cast<float>(config.head_dim()))};
}

// The rows of the graph that serves a step of so many rows: there are few graphs, and little is
// computed in vain.
int GraphRows(int num_rows) {
  if (num_rows <= 8) return static_cast<int>(std::bit_ceil(static_cast<unsigned>(num_rows)));
  return (num_rows + 7) / 8 * 8;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EvaByteCuda>> EvaByteCuda::Create(const EvaByteConfig& config,
                                                                 const EvaByteTensors& tensors,
                                                                 int64_t state_bytes,
                                                                 std::unique_ptr<Gpu> gpu) {
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;
  const absl::StatusOr<int> num_pages = NumPages(state_bytes, EvaByteCudaLayers::PageBytes(config));
  if (!num_pages.ok()) return num_pages.status();
  absl::StatusOr<EvaByteCudaWeights> weights = UploadEvaByteWeights(tensors, config.dtype, *gpu);
  if (!weights.ok()) return weights.status();
  std::unique_ptr<EvaByteCuda> backend(
      new EvaByteCuda(config, *std::move(weights), std::move(gpu), *num_pages));
  if (absl::Status status = backend->MakeState(); !status.ok()) return status;
  return backend;
}

EvaByteCuda::EvaByteCuda(const EvaByteConfig& config, EvaByteCudaWeights weights,
                         std::unique_ptr<Gpu> gpu, int num_pages)
    : config_(config),
      gpu_(std::move(gpu)),
      layers_(config_, std::move(weights), *gpu_),
      pages_({num_pages, kCudaPageSlots, EvaByteCudaLayers::PageBytes(config)}),
      step_(StepOptionsOf(config), *gpu_),
      decode_step_(StepOptionsOf(config), *gpu_),
      graphs_(*gpu_) {}

std::string EvaByteCuda::device() const {
  return absl::StrCat("cuda:", gpu_->info().index, " ", gpu_->info().name);
}

absl::Status EvaByteCuda::MakeState() {
  if (absl::Status status = layers_.MakeState(pages_.num_pages()); !status.ok()) return status;
  if (config_.dtype == DType::kFloat32) return absl::OkStatus();
  // What graphs use must not move.
  if (absl::Status status = MakeRoom(kMostGraphRows); !status.ok()) return status;
  const int64_t bytes = int64_t{kMostGraphRows} * config_.vocab_size * kFloatBytes;
  if (absl::Status status = Grow(*gpu_, bytes, decode_logits_); !status.ok()) return status;
  return decode_step_.Reserve(DecodeRoom(kMostGraphRows));
}

absl::Status EvaByteCuda::MakeRoom(int num_rows) {
  const absl::StatusOr<bool> has_moved = layers_.MakeRoom(num_rows);
  if (!has_moved.ok() || *has_moved) graphs_.Clear();
  return has_moved.status();
}

StepRoom EvaByteCuda::DecodeRoom(int num_rows) const {
  return {.num_rows = num_rows,
          .pages_per_row =
              CudaPagesOf(config_.window) + CudaPagesOf(config_.max_positions / config_.chunk)};
}

bool EvaByteCuda::IsDecode(const StepBatch& batch) const {
  return config_.dtype != DType::kFloat32 && batch.num_rows() <= kMostGraphRows &&
         std::ssize(batch.attends) == int64_t{batch.num_rows()};
}

absl::Status EvaByteCuda::Run(const StepBatch& batch) {
  num_decode_logits_ = 0;
  if (IsDecode(batch)) return Decode(batch);
  if (absl::Status status = MakeRoom(batch.num_rows()); !status.ok()) return status;
  if (absl::Status status = Prepare(batch, step_, /*room=*/nullptr); !status.ok()) return status;
  return layers_.Run(step_, batch.num_rows());
}

absl::Status EvaByteCuda::Decode(const StepBatch& batch) {
  const int num_rows = GraphRows(batch.num_rows());
  const StepRoom room = DecodeRoom(num_rows);
  if (absl::Status status = Prepare(batch, decode_step_, &room); !status.ok()) return status;
  absl::Status status = graphs_.Run(num_rows, [&] {
    absl::Status status = layers_.Run(decode_step_, num_rows);
    if (!status.ok()) return status;
    return layers_.ComputeLogits(layers_.hidden(), num_rows, /*num_heads=*/1,
                                 decode_logits_.as<float>());
  });
  if (status.ok()) num_decode_logits_ = batch.num_rows();
  return status;
}

absl::Status EvaByteCuda::Prepare(const StepBatch& batch, GpuStep& step, const StepRoom* room) {
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
  const std::vector<int32_t> tokens(batch.tokens.begin(), batch.tokens.end());
  return step.Prepare({.num_rows = batch.num_rows(),
                       .positions = positions,
                       .tokens = tokens,
                       .stores = stores,
                       .attends = batch.attends},
                      pages_.num_pages(), room);
}

absl::StatusOr<EvaByteBackend::Outputs> EvaByteCuda::ComputeOutputs(std::span<const int> rows,
                                                                    int num_logit_rows,
                                                                    bool wants_hidden) {
  if (rows.empty()) return Outputs{};
  const int num_rows = static_cast<int>(rows.size());
  const bool all_rows = num_rows == num_decode_logits_ && std::is_sorted(rows.begin(), rows.end());
  logits_.resize(size_t(num_logit_rows) * config_.vocab_size);
  absl::Status status;
  if (all_rows) {
    output_rows_ = static_cast<const char*>(layers_.hidden());
    status = gpu_->ToHost(logits_.data(), decode_logits_.as<void>(), logits_.size() * kFloatBytes);
  } else {
    const absl::StatusOr<const char*> gathered = Gather(rows);
    if (!gathered.ok()) return gathered.status();
    output_rows_ = *gathered;
    status = ReadLogits(output_rows_, num_logit_rows, /*num_heads=*/1, logits_.data());
  }
  if (status.ok() && wants_hidden) status = ReadHidden(num_rows);
  if (!status.ok()) return status;
  return Outputs{wants_hidden ? hidden_.data() : nullptr, logits_.data()};
}

absl::Status EvaByteCuda::ComputeAllLogits(int begin, int count, float* logits) {
  return ReadLogits(output_rows_ + begin * row_bytes(), count, config_.num_pred_heads, logits);
}

absl::StatusOr<const char*> EvaByteCuda::Gather(std::span<const int> rows) {
  const std::vector<int32_t> numbers(rows.begin(), rows.end());
  const int64_t number_bytes = std::ssize(numbers) * int64_t{sizeof(int32_t)};
  absl::Status status = Grow(*gpu_, number_bytes, row_numbers_);
  if (status.ok()) status = Grow(*gpu_, std::ssize(rows) * row_bytes(), gathered_);
  if (status.ok()) status = gpu_->ToDevice(row_numbers_.as<void>(), numbers.data(), number_bytes);
  if (!status.ok()) return status;
  status = LaunchStatus(LaunchGatherRows({.from = layers_.hidden(),
                                          .rows = row_numbers_.as<int32_t>(),
                                          .to = gathered_.as<void>(),
                                          .row_bytes = row_bytes()},
                                         static_cast<int>(rows.size()), gpu_->stream()));
  if (!status.ok()) return status;
  return gathered_.as<char>();
}

absl::Status EvaByteCuda::ReadLogits(const void* hidden, int num_rows, int num_heads,
                                     float* logits) {
  if (num_rows == 0) return absl::OkStatus();
  const int64_t bytes = int64_t{num_rows} * num_heads * config_.vocab_size * kFloatBytes;
  if (absl::Status status = Grow(*gpu_, bytes, device_logits_); !status.ok()) return status;
  absl::Status status =
      layers_.ComputeLogits(hidden, num_rows, num_heads, device_logits_.as<float>());
  if (!status.ok()) return status;
  return gpu_->ToHost(logits, device_logits_.as<void>(), bytes);
}

absl::Status EvaByteCuda::ReadHidden(int num_rows) {
  hidden_bytes_.resize(num_rows * row_bytes());
  absl::Status status = gpu_->ToHost(hidden_bytes_.data(), output_rows_, std::ssize(hidden_bytes_));
  if (!status.ok()) return status;
  hidden_.resize(int64_t{num_rows} * config_.hidden_size);
  for (int64_t i = 0; i < std::ssize(hidden_); ++i) {
    hidden_[i] = LoadElement(hidden_bytes_.data(), config_.dtype, i);
  }
  return absl::OkStatus();
}

}  // namespace evaserve

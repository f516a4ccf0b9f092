#include "models/evabyte/evabyte_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/io/checkpoint.h"
#include "models/io/generation_config.h"
#include "models/step_check.h"

namespace evaserve {
namespace {

bool EndsTurns(const EvaByteConfig& config) {
  return std::count(config.eos_tokens.begin(), config.eos_tokens.end(),
                    EvaByteTokenizer::kEndOfTurn) > 0;
}

ModelInfo InfoOf(const EvaByteConfig& config, const EvaByteBackend& backend,
                 SamplingParams default_sampling) {
  return {.architecture = "evabyte",
          .dtype = config.dtype,
          .device = backend.device(),
          .vocab_size = config.vocab_size,
          .hidden_size = config.hidden_size,
          .num_layers = config.num_layers,
          .num_heads = config.num_heads,
          .num_pred_heads = config.num_pred_heads,
          .window = config.window,
          .chunk = config.chunk,
          .max_seq_len = config.max_positions,
          .num_parameters = backend.num_parameters(),
          .weight_bytes = backend.weight_bytes(),
          .eos_tokens = config.eos_tokens,
          .default_sampling = std::move(default_sampling)};
}

// The step was checked, so what else fails than memory or the device is a bug of ours and none of
// the caller's.
absl::Status FailedStep(const absl::Status& status) {
  if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) return status;
  return absl::InternalError(status.message());
}

}  // namespace

EvaByteModel::EvaByteModel(EvaByteConfig config, SamplingParams default_sampling,
                           std::unique_ptr<EvaByteBackend> backend)
    : config_(std::move(config)),
      backend_(std::move(backend)),
      geometry_{config_.window, config_.chunk, backend_->pages().page_slots(),
                backend_->summarizes_early()},
      tokenizer_(/*has_chat_template=*/EndsTurns(config_)),
      info_(InfoOf(config_, *backend_, std::move(default_sampling))),
      outputs_(config_, *backend_) {}

std::unique_ptr<Sequence> EvaByteModel::NewSequence() {
  return std::make_unique<EvaByteSequence>(geometry_, backend_->pages());
}

int EvaByteModel::TokensToBoundary(const Sequence& sequence) const {
  return geometry_.TokensToBoundary(sequence.length());
}

int EvaByteModel::PagesFor(int64_t length) const {
  return static_cast<int>(geometry_.WindowPages(length) + geometry_.SummaryPages(length));
}

absl::Status EvaByteModel::Reserve(Sequence& sequence, int num_tokens) {
  if (num_tokens < 1 || num_tokens > TokensToBoundary(sequence)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_tokens is ", num_tokens, "; allowed: from 1 to ", TokensToBoundary(sequence)));
  }
  return static_cast<EvaByteSequence&>(sequence).Reserve(num_tokens);
}

absl::StatusOr<std::vector<StepResult>> EvaByteModel::Step(std::span<const StepItem> items) {
  absl::Status status = ValidateStep(
      items, {config_.vocab_size, config_.max_positions, config_.window}, ++num_steps_);
  if (!status.ok()) return status;
  batch_.Assign(items, geometry_);
  status = backend_->Run(batch_);
  if (!status.ok()) return FailedStep(status);
  absl::StatusOr<std::vector<StepResult>> results = outputs_.Compute(items);
  if (!results.ok()) return FailedStep(results.status());
  for (const StepItem& item : items) {
    static_cast<EvaByteSequence*>(item.sequence)->Advance(static_cast<int>(item.tokens.size()));
  }
  return results;
}

absl::StatusOr<std::unique_ptr<Model>> LoadEvaByteModel(const std::filesystem::path& directory,
                                                        const nlohmann::json& json,
                                                        const LoadOptions& options,
                                                        EvaByteBackendFactory make_backend) {
  absl::StatusOr<EvaByteConfig> config = ParseEvaByteConfig(json, directory);
  if (!config.ok()) return config.status();
  const absl::StatusOr<GenerationConfig> generation =
      ReadGenerationConfig(directory, config->vocab_size);
  if (!generation.ok()) return generation.status();
  if (generation->eos_tokens) config->eos_tokens = *generation->eos_tokens;
  if (options.dtype) config->dtype = *options.dtype;
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<EvaByteTensors> tensors = ReadEvaByteTensors(*checkpoint, *config);
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<std::unique_ptr<EvaByteBackend>> backend =
      make_backend(*config, *std::move(tensors));
  if (!backend.ok()) return backend.status();
  return std::make_unique<EvaByteModel>(*std::move(config), generation->sampling,
                                        *std::move(backend));
}

}  // namespace evaserve

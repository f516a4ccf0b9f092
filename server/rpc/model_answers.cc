#include "server/rpc/model_answers.h"

#include <chrono>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/tensor_answers.h"

namespace evaserve {
namespace {

struct Tensor {
  const char* name;
  const char* datatype;
  inference::DataType data_type;
  std::vector<int64_t> shape;
};

const Tensor kInput = {kTextInput, "BYTES", inference::TYPE_STRING, {-1}};

std::vector<Tensor> Outputs(const ModelInfo& info) {
  return {{"text_output", "BYTES", inference::TYPE_STRING, {-1}},
          {"log_likelihood", "FP64", inference::TYPE_FP64, {-1}},
          {"bits_per_byte", "FP64", inference::TYPE_FP64, {-1}},
          {"embedding", "FP32", inference::TYPE_FP32, {-1, info.hidden_size}}};
}

std::string Platform(const ModelInfo& info) {
  return absl::StrCat(info.architecture, "_safetensors");
}

void FillTensor(const Tensor& from, inference::ModelMetadataResponse::TensorMetadata& to) {
  to.set_name(from.name);
  to.set_datatype(from.datatype);
  to.mutable_shape()->Add(from.shape.begin(), from.shape.end());
}

void FillDuration(const DurationSum& from, inference::StatisticDuration& to) {
  to.set_count(from.count);
  to.set_ns(static_cast<uint64_t>(std::chrono::nanoseconds(from.total).count()));
}

bool IsOnGpu(std::string_view device) { return device.starts_with("cuda"); }

void FillTextMetadata(const ModelInfo& info, inference::ModelMetadataResponse& response) {
  response.set_platform(Platform(info));
  FillTensor(kInput, *response.add_inputs());
  for (const Tensor& output : Outputs(info)) FillTensor(output, *response.add_outputs());
}

void FillTextConfig(const ModelInfo& info, const EngineOptions& options,
                    inference::ModelConfig& config) {
  config.set_platform(Platform(info));
  inference::ModelInput& input = *config.add_input();
  input.set_name(kInput.name);
  input.set_data_type(kInput.data_type);
  input.mutable_dims()->Add(kInput.shape.begin(), kInput.shape.end());
  input.set_allow_ragged_batch(true);
  for (const Tensor& from : Outputs(info)) {
    inference::ModelOutput& output = *config.add_output();
    output.set_name(from.name);
    output.set_data_type(from.data_type);
    output.mutable_dims()->Add(from.shape.begin(), from.shape.end());
  }
  const std::pair<const char*, int64_t> parameters[] = {
      {"num_parameters", info.num_parameters},
      {"max_seq_len", info.max_seq_len},
      {"window", info.window},
      {"chunk", info.chunk},
      {"max_batch_tokens", options.max_batch_tokens},
      {"max_running", options.max_running},
      {"max_waiting_tokens", options.waiting.max_waiting_tokens},
      {"max_prompt_tokens", options.max_prompt_tokens},
      {"max_new_tokens", options.max_new_tokens}};
  for (const auto& [name, value] : parameters) {
    (*config.mutable_parameters())[name].set_string_value(absl::StrCat(value));
  }
  (*config.mutable_parameters())["dtype"].set_string_value(std::string(Name(info.dtype)));
}

void FillQueuePolicy(const EngineOptions& options, inference::ModelDynamicBatching& batching) {
  batching.set_priority_levels(kLeastUrgent);
  batching.set_default_priority_level(kDefaultPriority);
  inference::ModelQueuePolicy& policy = *batching.mutable_default_queue_policy();
  policy.set_max_queue_size(static_cast<uint32_t>(options.waiting.max_waiting));
  policy.set_default_timeout_microseconds(
      static_cast<uint64_t>(std::chrono::microseconds(options.max_queue_time).count()));
  policy.set_allow_timeout_override(true);
}

// Where a model is, and what its weights take there.
struct Place {
  std::string device;
  int64_t weight_bytes = 0;
};

Place PlaceOf(const ReadyModel& model) {
  if (model.tensors == nullptr) {
    return {model.engine->info().device, model.engine->info().weight_bytes};
  }
  return {model.tensors->info().device, model.tensors->info().weight_bytes};
}

}  // namespace

void FillMetadata(const ModelRepository& models, const ReadyModel& model,
                  inference::ModelMetadataResponse& response) {
  response.set_name(model.name);
  for (const ReadyModel& one : models.Ready()) {
    if (one.name == model.name) response.add_versions(absl::StrCat(one.version));
  }
  if (model.tensors != nullptr) {
    FillTensorMetadata(model.tensors->info(), response);
  } else {
    FillTextMetadata(model.engine->info(), response);
  }
}

void FillConfig(const ReadyModel& model, inference::ModelConfig& config) {
  config.set_name(model.name);
  config.set_backend("evaserve");
  if (model.tensors != nullptr) {
    FillTensorConfig(*model.tensors, config);
    FillQueuePolicy(model.tensors->options(), *config.mutable_dynamic_batching());
  } else {
    FillTextConfig(model.engine->info(), model.engine->options(), config);
    FillQueuePolicy(model.engine->options(), *config.mutable_dynamic_batching());
  }
  inference::ModelInstanceGroup& group = *config.add_instance_group();
  group.set_count(1);
  group.set_kind(IsOnGpu(PlaceOf(model).device) ? inference::ModelInstanceGroup::KIND_GPU
                                                : inference::ModelInstanceGroup::KIND_CPU);
  config.mutable_model_transaction_policy()->set_decoupled(false);
}

void FillStatistics(const ReadyModel& model, const ModelSums& sums,
                    inference::ModelStatistics& statistics) {
  using std::chrono::duration_cast;
  statistics.set_name(model.name);
  statistics.set_version(absl::StrCat(model.version));
  statistics.set_last_inference(static_cast<uint64_t>(
      duration_cast<std::chrono::milliseconds>(sums.last_inference.time_since_epoch()).count()));
  statistics.set_inference_count(sums.inferences);
  statistics.set_execution_count(sums.steps.count);
  inference::InferStatistics& infer = *statistics.mutable_inference_stats();
  FillDuration(sums.success, *infer.mutable_success());
  FillDuration(sums.fail, *infer.mutable_fail());
  FillDuration(sums.queue, *infer.mutable_queue());
  FillDuration(sums.compute, *infer.mutable_compute_infer());
  infer.mutable_compute_input();
  infer.mutable_compute_output();
  for (const auto& [rows, steps] : sums.steps_by_rows) {
    inference::InferBatchStatistics& batch = *statistics.add_batch_stats();
    batch.set_batch_size(static_cast<uint64_t>(rows));
    FillDuration(steps, *batch.mutable_compute_infer());
  }
  const Place place = PlaceOf(model);
  const EngineState state = model.any()->state();
  inference::MemoryUsage& memory = *statistics.add_memory_usage();
  memory.set_type(IsOnGpu(place.device) ? "GPU" : "CPU");
  memory.set_byte_size(
      static_cast<uint64_t>(place.weight_bytes + state.pages_used * state.page_bytes));
}

}  // namespace evaserve

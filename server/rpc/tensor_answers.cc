#include "server/rpc/tensor_answers.h"

#include <chrono>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// In the order of TensorType.
constexpr inference::DataType kDataTypes[] = {
    inference::TYPE_BOOL,   inference::TYPE_UINT8, inference::TYPE_UINT16, inference::TYPE_UINT32,
    inference::TYPE_UINT64, inference::TYPE_INT8,  inference::TYPE_INT16,  inference::TYPE_INT32,
    inference::TYPE_INT64,  inference::TYPE_FP16,  inference::TYPE_BF16,   inference::TYPE_FP32,
    inference::TYPE_FP64,   inference::TYPE_STRING};
static_assert(std::size(kDataTypes) == kNumTensorTypes);

void FillTensor(const TensorSpec& spec,
                inference::ModelMetadataResponse::TensorMetadata& metadata) {
  metadata.set_name(spec.name);
  metadata.set_datatype(Name(spec.type));
  metadata.mutable_shape()->Add(spec.shape.begin(), spec.shape.end());
}

// Of a ModelInput or ModelOutput, whose dimensions are without the batch if there is one.
template <typename ConfigTensor>
void FillTensor(const TensorSpec& spec, int max_batch_size, ConfigTensor& tensor) {
  tensor.set_name(spec.name);
  tensor.set_data_type(kDataTypes[static_cast<int>(spec.type)]);
  tensor.mutable_dims()->Add(spec.shape.begin() + (max_batch_size > 0 ? 1 : 0), spec.shape.end());
}

}  // namespace

void FillTensorMetadata(const TensorModelInfo& info, inference::ModelMetadataResponse& response) {
  response.set_platform(info.architecture);
  for (const TensorSpec& spec : info.inputs) FillTensor(spec, *response.add_inputs());
  for (const TensorSpec& spec : info.outputs) FillTensor(spec, *response.add_outputs());
}

void FillTensorConfig(const TensorEngine& engine, inference::ModelConfig& config) {
  const TensorModelInfo& info = engine.info();
  config.set_platform(info.architecture);
  const int max_batch_size = engine.options().max_batch_size;
  config.set_max_batch_size(max_batch_size);
  for (const TensorSpec& spec : info.inputs) {
    inference::ModelInput& input = *config.add_input();
    FillTensor(spec, max_batch_size, input);
    input.set_allow_ragged_batch(true);
    input.set_optional(spec.is_optional);
  }
  for (const TensorSpec& spec : info.outputs) {
    FillTensor(spec, max_batch_size, *config.add_output());
  }
  auto& parameters = *config.mutable_parameters();
  parameters["num_parameters"].set_string_value(absl::StrCat(info.num_parameters));
  for (const auto& [name, value] : info.parameters) parameters[name].set_string_value(value);
  for (const int64_t size : engine.options().preferred_batch_sizes) {
    config.mutable_dynamic_batching()->add_preferred_batch_size(static_cast<int32_t>(size));
  }
  config.mutable_dynamic_batching()->set_max_queue_delay_microseconds(
      static_cast<uint64_t>(engine.options().max_queue_delay.count()));
}

}  // namespace evaserve

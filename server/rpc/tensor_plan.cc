#include "server/rpc/tensor_plan.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/rpc/classification.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/infer_parameters.h"
#include "server/rpc/input_contents.h"
#include "server/rpc/quoted.h"
#include "server/rpc/refuse.h"
#include "server/rpc/typed_contents.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using Input = ModelInferRequest::InferInputTensor;

std::string NamesOf(const std::vector<TensorSpec>& specs) {
  return absl::StrJoin(specs, ", ", [](std::string* out, const TensorSpec& spec) {
    absl::StrAppend(out, spec.name);
  });
}

// The index of the tensor `name`, or specs.size().
size_t IndexOf(const std::string& name, const std::vector<TensorSpec>& specs) {
  const auto is_it = [&](const TensorSpec& spec) { return spec.name == name; };
  return static_cast<size_t>(std::ranges::find_if(specs, is_it) - specs.begin());
}

absl::Status CheckShape(const Input& input, const TensorSpec& spec) {
  bool fits = std::ssize(spec.shape) == input.shape_size() && input.shape(0) >= 1;
  for (int i = 0; fits && i < input.shape_size(); ++i) {
    fits = spec.shape[i] == -1 ? input.shape(i) >= 0 : input.shape(i) == spec.shape[i];
  }
  if (fits) return absl::OkStatus();
  return Refuse(spec.name, ": got shape [", absl::StrJoin(input.shape(), ","), "], allowed is ",
                ShapeText(spec.shape));
}

// What a tensor of this shape has, or the largest number if that is more.
int64_t NumElementsOfShape(const Input& input) {
  int64_t elements = 1;
  for (const int64_t size : input.shape()) {
    if (__builtin_mul_overflow(elements, size, &elements)) {
      return std::numeric_limits<int64_t>::max();
    }
  }
  return elements;
}

absl::Status CheckRaw(std::string_view raw, const TensorSpec& spec, int64_t num_elements) {
  if (spec.type == TensorType::kBytes) {
    return DecodeRawBytes(spec.name, raw, num_elements).status();
  }
  const auto size = static_cast<int64_t>(raw.size());
  const int64_t element_bytes = ElementBytes(spec.type);
  if (size % element_bytes == 0 && size / element_bytes == num_elements) return absl::OkStatus();
  return Refuse(spec.name, ": got ", size, " bytes of raw contents, its shape has ", num_elements,
                " elements of ", element_bytes, " bytes");
}

absl::Status CheckInput(const Input& input, const TensorSpec& spec) {
  if (input.datatype() != Name(spec.type)) {
    return Refuse(spec.name, ": got datatype ", Quoted(input.datatype()), ", allowed is ",
                  Name(spec.type));
  }
  return CheckShape(input, spec);
}

// The data of input number `i` of the request.
absl::StatusOr<std::string_view> ReadData(const ModelInferRequest& request, int i,
                                          const TensorSpec& spec, TensorPlan& plan) {
  const Input& input = request.inputs(i);
  const int64_t num_elements = NumElementsOfShape(input);
  const absl::StatusOr<const std::string*> raw = RawContents(request, i);
  if (!raw.ok()) return raw.status();
  if (*raw == nullptr) {
    absl::StatusOr<std::string> converted = TypedToRaw(input.contents(), spec, num_elements);
    if (!converted.ok()) return converted.status();
    return plan.contents.emplace_back(*std::move(converted));
  }
  if (absl::Status status = CheckRaw(**raw, spec, num_elements); !status.ok()) return status;
  return **raw;
}

absl::Status ReadInput(const ModelInferRequest& request, int i, const TensorModelInfo& info,
                       TensorPlan& plan) {
  const Input& input = request.inputs(i);
  const size_t index = IndexOf(input.name(), info.inputs);
  if (index == info.inputs.size()) {
    return Refuse("inputs: got '", Quoted(input.name()), "', allowed are ", NamesOf(info.inputs));
  }
  const TensorSpec& spec = info.inputs[index];
  InputTensor& to = plan.inputs[index];
  if (!to.shape.empty()) return Refuse("inputs: got ", spec.name, " twice, allowed is once");
  if (absl::Status status = CheckInput(input, spec); !status.ok()) return status;
  if (plan.batch != 0 && plan.batch != input.shape(0)) {
    return Refuse(spec.name, ": got a batch of ", input.shape(0), ", another input has ",
                  plan.batch);
  }
  plan.batch = input.shape(0);
  to.shape.assign(input.shape().begin(), input.shape().end());
  const absl::StatusOr<std::string_view> data = ReadData(request, i, spec, plan);
  if (!data.ok()) return data.status();
  to.data = *data;
  return absl::OkStatus();
}

absl::Status ReadInputs(const ModelInferRequest& request, const TensorModelInfo& info,
                        TensorPlan& plan) {
  plan.inputs.resize(info.inputs.size());
  for (int i = 0; i < request.inputs_size(); ++i) {
    if (absl::Status status = ReadInput(request, i, info, plan); !status.ok()) return status;
  }
  for (size_t i = 0; i < info.inputs.size(); ++i) {
    if (!plan.inputs[i].shape.empty() || info.inputs[i].is_optional) continue;
    return Refuse("inputs: ", info.inputs[i].name, " is missing, needed are ",
                  NamesOf(info.inputs));
  }
  if (plan.batch == 0) return Refuse("inputs: got none, allowed are ", NamesOf(info.inputs));
  return absl::OkStatus();
}

// The parameters of an output.
absl::StatusOr<TensorPlan::Output> ReadOutput(
    const ModelInferRequest::InferRequestedOutputTensor& wanted, const TensorModelInfo& info) {
  TensorPlan::Output output{.index = IndexOf(wanted.name(), info.outputs)};
  if (output.index == info.outputs.size()) {
    return Refuse("outputs: got '", Quoted(wanted.name()), "', allowed are ",
                  NamesOf(info.outputs));
  }
  const TensorSpec& spec = info.outputs[output.index];
  const bool can_classify = CanClassify(spec.type);
  for (const auto& [name, value] : wanted.parameters()) {
    if (name != "classification" || !can_classify) {
      return RefuseParameter(wanted.name(), name, can_classify ? "classification" : "none");
    }
    if (!value.has_int64_param() || value.int64_param() < 1) {
      return Refuse(wanted.name(), ": got classification ", value.int64_param(),
                    ", allowed is an integer from 1 on");
    }
    output.num_classes = value.int64_param();
  }
  return output;
}

absl::Status ReadOutputs(const ModelInferRequest& request, const TensorModelInfo& info,
                         TensorPlan& plan) {
  for (const auto& wanted : request.outputs()) {
    const absl::StatusOr<TensorPlan::Output> output = ReadOutput(wanted, info);
    if (!output.ok()) return output.status();
    if (std::ranges::count(plan.outputs, output->index, &TensorPlan::Output::index) > 0) {
      return Refuse("outputs: got ", wanted.name(), " twice, allowed is once");
    }
    plan.outputs.push_back(*output);
    plan.inputs.wanted_outputs.push_back(output->index);
  }
  for (size_t i = 0; request.outputs().empty() && i < info.outputs.size(); ++i) {
    plan.outputs.push_back({.index = i});
  }
  return absl::OkStatus();
}

}  // namespace

int64_t TensorPlan::input_bytes() const {
  size_t bytes = 0;
  for (const InputTensor& input : inputs) bytes += input.data.size();
  return static_cast<int64_t>(bytes);
}

absl::StatusOr<TensorPlan> PlanTensors(const ModelInferRequest& request,
                                       const TensorModelInfo& info, TimePoint deadline) {
  TensorPlan plan;
  if (absl::Status status = ReadInputs(request, info, plan); !status.ok()) return status;
  if (absl::Status status = ReadOutputs(request, info, plan); !status.ok()) return status;
  const absl::StatusOr<InferParameters> parameters = ParseTensorParameters(request.parameters());
  if (!parameters.ok()) return parameters.status();
  plan.priority = parameters->priority;
  plan.deadline = EarlierDeadline(deadline, *parameters);
  return plan;
}

TensorRequest MakeRequest(const TensorPlan& plan) {
  return {.inputs = plan.inputs,
          .batch = plan.batch,
          .deadline = plan.deadline,
          .priority = plan.priority};
}

void FillTensors(const TensorPlan& plan, const TensorModelInfo& info, TensorModel::Outputs outputs,
                 inference::ModelInferResponse& response) {
  for (const TensorPlan::Output& wanted : plan.outputs) {
    const TensorSpec& spec = info.outputs[wanted.index];
    OutputTensor& output = outputs[wanted.index];
    auto& to = *response.add_outputs();
    to.set_name(spec.name);
    to.set_datatype(Name(wanted.num_classes > 0 ? TensorType::kBytes : spec.type));
    if (wanted.num_classes > 0) {
      output = Classify(output, spec.type, spec.labels, wanted.num_classes);
    }
    to.mutable_shape()->Add(output.shape.begin(), output.shape.end());
    *response.add_raw_output_contents() = std::move(output.data);
  }
}

}  // namespace evaserve

#include "server/rpc/input_contents.h"

#include "server/rpc/refuse.h"
#include "server/rpc/typed_contents.h"

namespace evaserve {
namespace {

using inference::InferParameter;
using inference::ModelInferRequest;
using Input = ModelInferRequest::InferInputTensor;

absl::Status CheckSize(const Input& input, const InferParameter& size, const std::string* raw) {
  const size_t raw_bytes = raw == nullptr ? 0 : raw->size();
  if (size.has_int64_param() && size.int64_param() == static_cast<int64_t>(raw_bytes)) {
    return absl::OkStatus();
  }
  return Refuse(input.name(), ": got parameter binary_data_size ", size.int64_param(),
                ", its raw contents have ", raw_bytes, " bytes");
}

absl::Status CheckParameters(const Input& input, const std::string* raw) {
  for (const auto& [name, value] : input.parameters()) {
    if (name == "content_type" && value.has_string_param()) continue;
    if (name != "binary_data_size") {
      return RefuseParameter(input.name(), name, "binary_data_size or a string content_type");
    }
    if (absl::Status status = CheckSize(input, value, raw); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<const std::string*> RawContents(const ModelInferRequest& request, int i) {
  const Input& input = request.inputs(i);
  for (const auto& [name, value] : input.parameters()) {
    // It has no contents in the message.
    if (IsOfSharedMemory(name)) return RefuseParameter(input.name(), name, "");
  }
  const int num_raw = request.raw_input_contents_size();
  if (num_raw != 0 && NumElements(input.contents()) > 0) {
    return Refuse("contents field must not be specified when using raw_input_contents for '",
                  input.name(), "' for model '", request.model_name(), "'");
  }
  if (num_raw != 0 && num_raw != request.inputs_size()) {
    return Refuse("raw_input_contents: got ", num_raw, " entries, allowed is ",
                  request.inputs_size(), ", one for each input");
  }
  const std::string* raw = num_raw == 0 ? nullptr : &request.raw_input_contents(i);
  if (absl::Status status = CheckParameters(input, raw); !status.ok()) return status;
  return raw;
}

}  // namespace evaserve

#include "client/infer_tensors.h"

#include <cstring>

namespace evaserve {

using inference::ModelInferRequest;

ModelInferRequest::InferInputTensor& AddInput(const char* name, const char* type, int64_t rows,
                                              ModelInferRequest& request) {
  ModelInferRequest::InferInputTensor& input = *request.add_inputs();
  input.set_name(name);
  input.set_datatype(type);
  input.add_shape(rows);
  input.add_shape(1);
  return input;
}

std::optional<std::string> TakeElement(std::string_view& raw) {
  uint32_t length;
  if (raw.size() < sizeof(length)) return std::nullopt;
  std::memcpy(&length, raw.data(), sizeof(length));
  raw.remove_prefix(sizeof(length));
  if (raw.size() < length) return std::nullopt;
  std::string element(raw.substr(0, length));
  raw.remove_prefix(length);
  return element;
}

}  // namespace evaserve

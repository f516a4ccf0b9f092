#include "bench/overhead/identity_call.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace evaserve {

inference::ModelInferRequest MakeIdentityRequest(const std::string& model, int elements) {
  inference::ModelInferRequest request;
  request.set_model_name(model);
  auto& input = *request.add_inputs();
  input.set_name("INPUT0");
  input.set_datatype("FP32");
  input.add_shape(1);
  input.add_shape(elements);
  std::vector<float> values(elements);
  for (int i = 0; i < elements; ++i) values[i] = 0.5f * static_cast<float>(i);
  request.add_raw_input_contents(reinterpret_cast<const char*>(values.data()),
                                 values.size() * sizeof(float));
  return request;
}

void MakeDifferent(inference::ModelInferRequest& request, int64_t number) {
  request.set_id(absl::StrCat(number));
  const float element = static_cast<float>(number);
  memcpy(request.mutable_raw_input_contents(0)->data(), &element, sizeof(element));
}

std::string WhatIsWrong(const inference::ModelInferRequest& request,
                        const inference::ModelInferResponse& response) {
  if (response.id() != request.id()) return "answers another request";
  if (response.outputs_size() != 1 || response.outputs(0).name() != "OUTPUT0") {
    return "not OUTPUT0 alone";
  }
  const auto& input = request.inputs(0);
  const auto& output = response.outputs(0);
  if (output.datatype() != input.datatype()) return "another datatype";
  if (!std::equal(input.shape().begin(), input.shape().end(), output.shape().begin(),
                  output.shape().end())) {
    return "another shape";
  }
  if (response.raw_output_contents_size() != 1 ||
      response.raw_output_contents(0) != request.raw_input_contents(0)) {
    return "other elements than were sent";
  }
  return "";
}

}  // namespace evaserve

#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "inference/open_inference.pb.h"

namespace evaserve {

// A greedy request of up to 100 tokens, with raw contents as Triton's clients send them.
inline inference::ModelInferRequest InferRequest(const std::vector<std::string>& texts,
                                                 const std::vector<std::string>& outputs = {}) {
  inference::ModelInferRequest request;
  request.set_model_name("fake");
  request.set_id("request-1");
  (*request.mutable_parameters())["temperature"].set_double_param(0);
  (*request.mutable_parameters())["max_tokens"].set_int64_param(100);
  auto* input = request.add_inputs();
  input->set_name("text_input");
  input->set_datatype("BYTES");
  input->add_shape(static_cast<int64_t>(texts.size()));
  std::string& raw = *request.add_raw_input_contents();
  for (const std::string& text : texts) {
    const auto length = static_cast<uint32_t>(text.size());
    raw.append(reinterpret_cast<const char*>(&length), sizeof(length));
    raw += text;
  }
  for (const std::string& output : outputs) request.add_outputs()->set_name(output);
  return request;
}

// A request to a FakeTensorModel named "tensors", with the id `data`.
inline inference::ModelInferRequest TensorInferRequest(const std::string& data) {
  inference::ModelInferRequest request;
  request.set_model_name("tensors");
  request.set_id(data);
  auto& input = *request.add_inputs();
  input.set_name("input");
  input.set_datatype("UINT8");
  input.add_shape(1);
  input.add_shape(static_cast<int64_t>(data.size()));
  request.add_raw_input_contents(data);
  return request;
}

// The elements of the output tensor at `index`, which is BYTES.
inline std::vector<std::string> TextsOf(const inference::ModelInferResponse& response,
                                        int index = 0) {
  std::vector<std::string> texts;
  const std::string& raw = response.raw_output_contents(index);
  for (size_t position = 0; position < raw.size();) {
    uint32_t length;
    std::memcpy(&length, raw.data() + position, sizeof(length));
    texts.push_back(raw.substr(position + sizeof(length), length));
    position += sizeof(length) + length;
  }
  return texts;
}

// The elements of the output tensor at `index`, whose elements are of type T.
template <typename T>
std::vector<T> ValuesOf(const inference::ModelInferResponse& response, int index = 0) {
  const std::string& raw = response.raw_output_contents(index);
  std::vector<T> values(raw.size() / sizeof(T));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

}  // namespace evaserve

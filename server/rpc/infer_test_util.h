#pragma once

#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "inference/open_inference.pb.h"

namespace evaserve {

// Raw contents of a tensor with elements of type T.
template <typename T>
std::string RawOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// Raw contents of a tensor of BYTES.
inline std::string RawBytesOf(const std::vector<std::string>& elements) {
  std::string raw;
  for (const std::string& element : elements) {
    raw += RawOf<uint32_t>({static_cast<uint32_t>(element.size())}) + element;
  }
  return raw;
}

// An input without contents.
inline inference::ModelInferRequest::InferInputTensor& AddInput(
    const std::string& name, std::string_view datatype, const std::vector<int64_t>& shape,
    inference::ModelInferRequest& request) {
  auto& input = *request.add_inputs();
  input.set_name(name);
  input.set_datatype(std::string(datatype));
  input.mutable_shape()->Add(shape.begin(), shape.end());
  return input;
}

// A greedy request of up to 100 tokens, with raw contents as Triton's clients send them.
inline inference::ModelInferRequest InferRequest(const std::vector<std::string>& texts,
                                                 const std::vector<std::string>& outputs = {}) {
  inference::ModelInferRequest request;
  request.set_model_name("fake");
  request.set_id("request-1");
  (*request.mutable_parameters())["temperature"].set_double_param(0);
  (*request.mutable_parameters())["max_tokens"].set_int64_param(100);
  AddInput("text_input", "BYTES", {std::ssize(texts)}, request);
  request.add_raw_input_contents(RawBytesOf(texts));
  for (const std::string& output : outputs) request.add_outputs()->set_name(output);
  return request;
}

// A request to a FakeTensorModel named "tensors", with the id `data`.
inline inference::ModelInferRequest TensorInferRequest(const std::string& data) {
  inference::ModelInferRequest request;
  request.set_model_name("tensors");
  request.set_id(data);
  AddInput("input", "UINT8", {1, std::ssize(data)}, request);
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

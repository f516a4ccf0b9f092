#include "server/rpc/infer_codec.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_join.h"
#include "server/rpc/input_contents.h"
#include "server/rpc/refuse.h"
#include "server/rpc/typed_contents.h"

namespace evaserve {
namespace {

using inference::InferTensorContents;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using Input = ModelInferRequest::InferInputTensor;

constexpr size_t kLengthBytes = 4;

// The wire is little-endian; tensors are copied as they lie in memory.
static_assert(std::endian::native == std::endian::little);

absl::StatusOr<const Input*> OnlyInput(const ModelInferRequest& request) {
  if (request.inputs().empty()) return Refuse("inputs: got none, allowed is text_input");
  for (const Input& input : request.inputs()) {
    if (input.name() != kTextInput) {
      return Refuse("inputs: got '", input.name(), "', allowed is text_input");
    }
  }
  if (request.inputs_size() > 1) {
    return Refuse("inputs: got text_input ", request.inputs_size(), " times, allowed is once");
  }
  return &request.inputs(0);
}

absl::StatusOr<int64_t> CheckedSize(const Input& input) {
  if (input.datatype() != "BYTES") {
    return Refuse("text_input: got datatype ", input.datatype(), ", allowed is BYTES");
  }
  const bool is_list = input.shape_size() == 1 || (input.shape_size() == 2 && input.shape(1) == 1);
  if (!is_list || input.shape(0) < 1 || input.shape(0) > kMaxInferBatch) {
    return Refuse("text_input: got shape [", absl::StrJoin(input.shape(), ","),
                  "], allowed is [n] or [n,1] with n from 1 to ", kMaxInferBatch);
  }
  return input.shape(0);
}

absl::StatusOr<std::vector<std::string_view>> DecodeTyped(const InferTensorContents& contents,
                                                          int64_t num_elements) {
  if (NumElements(contents) != contents.bytes_contents_size()) {
    return Refuse("text_input: got contents of another datatype, allowed is bytes_contents");
  }
  if (contents.bytes_contents_size() != num_elements) {
    return Refuse("text_input: got ", contents.bytes_contents_size(),
                  " elements in bytes_contents, the shape has ", num_elements);
  }
  return std::vector<std::string_view>(contents.bytes_contents().begin(),
                                       contents.bytes_contents().end());
}

absl::StatusOr<std::vector<std::string_view>> DecodeInput(const ModelInferRequest& request,
                                                          const Input& input,
                                                          int64_t num_elements) {
  const absl::StatusOr<const std::string*> raw = RawContents(request, /*i=*/0);
  if (!raw.ok()) return raw.status();
  if (*raw == nullptr) return DecodeTyped(input.contents(), num_elements);
  return DecodeRawBytes(kTextInput, **raw, num_elements);
}

ModelInferResponse::InferOutputTensor& AddOutput(const char* name, const char* datatype,
                                                 size_t num_elements,
                                                 ModelInferResponse& response) {
  ModelInferResponse::InferOutputTensor& output = *response.add_outputs();
  output.set_name(name);
  output.set_datatype(datatype);
  output.add_shape(static_cast<int64_t>(num_elements));
  return output;
}

template <typename T>
void AppendRaw(std::span<const T> elements, std::string& raw) {
  raw.append(reinterpret_cast<const char*>(elements.data()), elements.size_bytes());
}

}  // namespace

absl::StatusOr<std::vector<std::string_view>> DecodeTextInput(const ModelInferRequest& request) {
  const absl::StatusOr<const Input*> input = OnlyInput(request);
  if (!input.ok()) return input.status();
  const absl::StatusOr<int64_t> size = CheckedSize(**input);
  if (!size.ok()) return size.status();
  absl::StatusOr<std::vector<std::string_view>> elements = DecodeInput(request, **input, *size);
  if (!elements.ok()) return elements.status();

  for (size_t i = 0; i < elements->size(); ++i) {
    if ((*elements)[i].empty()) {
      return Refuse("text_input: element ", i, " is empty, allowed is at least 1 byte");
    }
  }
  return elements;
}

absl::StatusOr<std::vector<std::string_view>> DecodeRawBytes(std::string_view name,
                                                             std::string_view raw,
                                                             int64_t num_elements) {
  std::vector<std::string_view> elements;
  size_t position = 0;
  for (int64_t i = 0; i < num_elements; ++i) {
    const size_t left = raw.size() - position;
    if (left < kLengthBytes) {
      return Refuse(std::string(name), ": raw contents of ", raw.size(),
                    " bytes end before element ", i, " of ", num_elements);
    }
    uint32_t length;
    std::memcpy(&length, raw.data() + position, kLengthBytes);
    if (length > left - kLengthBytes) {
      return Refuse(std::string(name), ": element ", i, " has length ", length,
                    ", the raw contents have ", left - kLengthBytes, " bytes left");
    }
    elements.push_back(raw.substr(position + kLengthBytes, length));
    position += kLengthBytes + length;
  }
  if (position < raw.size()) {
    return Refuse(std::string(name), ": raw contents have ", raw.size() - position,
                  " bytes after the ", num_elements, " elements of the shape");
  }
  return elements;
}

void AppendRawBytes(std::string_view element, std::string& raw) {
  const auto length = static_cast<uint32_t>(element.size());
  AppendRaw(std::span(&length, 1), raw);
  raw.append(element);
}

void AddBytesOutput(const char* name, std::span<const std::string_view> elements,
                    ModelInferResponse& response) {
  AddOutput(name, "BYTES", elements.size(), response);
  std::string& raw = *response.add_raw_output_contents();
  for (const std::string_view element : elements) AppendRawBytes(element, raw);
}

void AddFp64Output(const char* name, std::span<const double> elements,
                   ModelInferResponse& response) {
  AddOutput(name, "FP64", elements.size(), response);
  AppendRaw(elements, *response.add_raw_output_contents());
}

void AddFp32Output(const char* name, std::span<const std::span<const float>> rows,
                   ModelInferResponse& response) {
  auto& output = AddOutput(name, "FP32", rows.size(), response);
  output.add_shape(rows.empty() ? 0 : static_cast<int64_t>(rows.front().size()));
  std::string& raw = *response.add_raw_output_contents();
  for (const std::span<const float> row : rows) AppendRaw(row, raw);
}

}  // namespace evaserve

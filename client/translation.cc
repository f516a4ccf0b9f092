#include "client/translation.h"

#include <cstring>

#include "client/infer_tensors.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

ModelInferRequest MakeRequest(std::span<const std::string> texts, const TranslateOptions& options) {
  const auto rows = static_cast<int64_t>(texts.size());
  ModelInferRequest request;
  request.set_model_name(options.model);
  auto& text = AddInput("text_input", "BYTES", rows, request);
  for (const std::string& one : texts) text.mutable_contents()->add_bytes_contents(one);
  const auto add_integer = [&](const char* name, const std::optional<int32_t>& value) {
    if (!value) return;
    auto& input = AddInput(name, "INT32", rows, request);
    for (int64_t i = 0; i < rows; ++i) input.mutable_contents()->add_int_contents(*value);
  };
  add_integer("beam_size", options.beam_size);
  add_integer("max_tokens", options.max_tokens);
  if (options.length_penalty) {
    auto& input = AddInput("length_penalty", "FP32", rows, request);
    for (int64_t i = 0; i < rows; ++i) {
      input.mutable_contents()->add_fp32_contents(*options.length_penalty);
    }
  }
  request.add_outputs()->set_name("text_output");
  request.add_outputs()->set_name("score");
  return request;
}

absl::StatusOr<std::vector<Translation>> ReadResponse(const ModelInferResponse& response,
                                                      size_t count) {
  const absl::Status error = absl::InternalError("the server's answer is not one of translations");
  if (response.raw_output_contents_size() != 2) return error;
  std::string_view texts = response.raw_output_contents(0);
  const std::string& scores = response.raw_output_contents(1);
  if (scores.size() != count * sizeof(float)) return error;
  std::vector<Translation> translations(count);
  for (size_t i = 0; i < count; ++i) {
    std::optional<std::string> text = TakeElement(texts);
    if (!text) return error;
    translations[i].text = *std::move(text);
    std::memcpy(&translations[i].score, scores.data() + i * sizeof(float), sizeof(float));
  }
  return translations;
}

}  // namespace

absl::StatusOr<std::vector<Translation>> Translate(Client& client,
                                                   std::span<const std::string> texts,
                                                   const TranslateOptions& options,
                                                   const CallOptions& call) {
  const auto response = client.Infer(MakeRequest(texts, options), call);
  if (!response.ok()) return response.status();
  return ReadResponse(*response, texts.size());
}

}  // namespace evaserve

#include "client/fill_mask.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "client/infer_tensors.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

constexpr std::string_view kPartEnd = "@@";

ModelInferRequest MakeRequest(std::span<const std::string> texts, const FillMaskOptions& options) {
  const auto rows = static_cast<int64_t>(texts.size());
  ModelInferRequest request;
  request.set_model_name(options.model);
  auto& text = AddInput("text_input", "BYTES", rows, request);
  for (const std::string& one : texts) text.mutable_contents()->add_bytes_contents(one);
  if (options.top_k) {
    auto& input = AddInput("top_k", "INT32", rows, request);
    for (int64_t i = 0; i < rows; ++i) input.mutable_contents()->add_int_contents(*options.top_k);
  }
  for (const char* output : {"top_tokens", "top_logprobs", "top_words"}) {
    request.add_outputs()->set_name(output);
  }
  return request;
}

// Takes the next value off raw contents that have one.
template <typename T>
T Take(std::string_view& raw) {
  T value;
  std::memcpy(&value, raw.data(), sizeof(value));
  raw.remove_prefix(sizeof(value));
  return value;
}

absl::StatusOr<std::vector<std::vector<MaskGuesses>>> ReadResponse(
    const ModelInferResponse& response, int64_t count) {
  const absl::Status error = absl::InternalError("the server's answer is not one of guesses");
  if (response.outputs_size() != 3 || response.raw_output_contents_size() != 3) return error;
  const auto& shape = response.outputs(0).shape();
  std::string_view tokens = response.raw_output_contents(0);
  std::string_view logprobs = response.raw_output_contents(1);
  std::string_view words = response.raw_output_contents(2);
  if (shape.size() != 3 || shape[0] != count || shape[1] < 0 || shape[2] < 1) return error;
  const size_t num_guesses = tokens.size() / sizeof(int64_t);
  const bool is_whole = static_cast<double>(shape[0]) * static_cast<double>(shape[1]) *
                            static_cast<double>(shape[2]) ==
                        static_cast<double>(num_guesses);
  if (!is_whole || logprobs.size() != num_guesses * sizeof(float)) return error;
  std::vector<std::vector<MaskGuesses>> texts(count);
  for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
    MaskGuesses guesses;
    for (int64_t k = 0; k < shape[2]; ++k) {
      std::optional<std::string> word = TakeElement(words);
      if (!word) return error;
      MaskGuess guess = {Take<int64_t>(tokens), *std::move(word), Take<float>(logprobs)};
      if (guess.token >= 0) guesses.push_back(std::move(guess));
    }
    if (!guesses.empty()) texts[i / shape[1]].push_back(std::move(guesses));
  }
  return texts;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<MaskGuesses>>> FillMasks(Client& client,
                                                                std::span<const std::string> texts,
                                                                const FillMaskOptions& options,
                                                                const CallOptions& call) {
  const auto response = client.Infer(MakeRequest(texts, options), call);
  if (!response.ok()) return response.status();
  return ReadResponse(*response, static_cast<int64_t>(texts.size()));
}

std::string WithWord(std::string_view text, size_t index, std::string_view word) {
  size_t begin = text.find(kMaskWord);
  for (; index > 0 && begin != std::string_view::npos; --index) {
    begin = text.find(kMaskWord, begin + kMaskWord.size());
  }
  if (begin == std::string_view::npos) return std::string(text);
  std::string_view rest = text.substr(begin + kMaskWord.size());
  if (word.ends_with(kPartEnd)) {
    word.remove_suffix(kPartEnd.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  }
  return absl::StrCat(std::string(text.substr(0, begin)), std::string(word), std::string(rest));
}

}  // namespace evaserve

#pragma once

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "models/tensor_model.h"

namespace evaserve {

// One request for a translation model, which keeps its tensors.
class TranslationRequest {
 public:
  explicit TranslationRequest(const std::vector<std::string>& texts) : batch_(std::ssize(texts)) {
    for (const std::string& text : texts) AppendBytesElement(text, texts_);
    inputs_.resize(4);
    inputs_[0] = {{batch_, 1}, texts_};
  }

  TranslationRequest(const TranslationRequest&) = delete;
  TranslationRequest& operator=(const TranslationRequest&) = delete;

  // The same for all rows.
  TranslationRequest& BeamSize(int32_t value) { return Set(1, value); }
  TranslationRequest& LengthPenalty(float value) { return Set(2, value); }
  TranslationRequest& MaxTokens(int32_t value) { return Set(3, value); }

  const TensorModel::Inputs* inputs() const { return &inputs_; }

 private:
  template <typename T>
  TranslationRequest& Set(int input, T value) {
    std::string& data = optional_[input];
    data.clear();
    for (int64_t i = 0; i < batch_; ++i) {
      data.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    inputs_[input] = {{batch_, 1}, data};
    return *this;
  }

  const int64_t batch_;
  std::string texts_, optional_[4];
  TensorModel::Inputs inputs_;
};

struct Translations {
  std::vector<std::string> texts;
  std::vector<float> scores;

  bool operator==(const Translations&) const = default;
};

inline Translations ReadTranslations(const TensorModel::Outputs& outputs) {
  Translations translations;
  for (const std::string_view text : BytesElements(outputs.at(0).data)) {
    translations.texts.emplace_back(text);
  }
  translations.scores.resize(outputs.at(1).data.size() / sizeof(float));
  std::memcpy(translations.scores.data(), outputs[1].data.data(), outputs[1].data.size());
  return translations;
}

}  // namespace evaserve

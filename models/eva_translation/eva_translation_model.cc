#include "models/eva_translation/eva_translation_model.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/eva_translation/translation_text.h"
#include "models/eva_translation/translator.h"
#include "models/text/text_rows.h"

namespace evaserve {
namespace {

constexpr int kTextInput = 0, kBeamSize = 1, kLengthPenalty = 2, kMaxTokens = 3;  // inputs
// Of all rows: a request is one piece of work, for which others wait.
constexpr int64_t kMaxRequestSlots = int64_t{8} * kMaxSlots;

using Outputs = TensorModel::Outputs;
using Inputs = TensorModel::Inputs;

// Of an input that may be absent.
template <typename T>
T ElementOr(const InputTensor& tensor, size_t index, T fallback) {
  return tensor.shape.empty() ? fallback : ElementAt<T>(tensor, index);
}

template <typename T, typename Limit>
absl::Status CheckRange(const char* input, size_t row, T value, Limit min, Limit max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(input, ": row ", row, " is ", value, ", allowed are ", min, " to ", max));
}

// How many hypotheses a search for up to so many tokens may have.
int64_t LargestBeam(int max_length) { return kMaxSlots / (max_length + 1); }

int LongestTranslation(const EvaTranslationConfig& config) { return config.decoder.max_tokens - 1; }

// The max_tokens of a row that does not say it.
int UsualLength(const EvaTranslationConfig& config, size_t num_source_tokens) {
  const double length =
      config.search.max_len_a * static_cast<double>(num_source_tokens) + config.search.max_len_b;
  return static_cast<int>(std::clamp<double>(std::floor(length), 1, LongestTranslation(config)));
}

class EvaTranslationModel final : public TensorModel {
 public:
  EvaTranslationModel(TensorModelInfo info, EvaTranslationConfig config, TranslationText text,
                      std::unique_ptr<Translator> translator);

  const TensorModelInfo& info() const override { return info_; }
  // What goes through the layers at a time: those of the sources, then one for each hypothesis.
  absl::StatusOr<int64_t> CountTokens(const Inputs& inputs) const override;
  StatePool state_pool() const override { return translator_->slots(); }
  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override;

 private:
  absl::StatusOr<std::vector<TranslationTask>> MakeTasks(const Inputs& inputs) const;
  absl::StatusOr<TranslationTask> MakeTask(const Inputs& inputs, std::string_view text,
                                           size_t row) const;
  absl::StatusOr<std::vector<TokenId>> ReadSource(std::string_view text, size_t row) const;
  absl::StatusOr<BeamSearch::Options> ReadSearch(const Inputs& inputs, size_t row,
                                                 size_t num_source_tokens) const;
  int longest() const { return LongestTranslation(config_); }

  TensorModelInfo info_;
  const EvaTranslationConfig config_;
  const TranslationText text_;
  const std::unique_ptr<Translator> translator_;
};

EvaTranslationModel::EvaTranslationModel(TensorModelInfo info, EvaTranslationConfig config,
                                         TranslationText text,
                                         std::unique_ptr<Translator> translator)
    : info_(std::move(info)),
      config_(std::move(config)),
      text_(std::move(text)),
      translator_(std::move(translator)) {
  const auto tensor = [](const char* name, TensorType type, bool is_optional) {
    return TensorSpec{.name = name, .type = type, .shape = {-1, 1}, .is_optional = is_optional};
  };
  info_.inputs = {tensor("text_input", TensorType::kBytes, false),
                  tensor("beam_size", TensorType::kInt32, true),
                  tensor("length_penalty", TensorType::kFp32, true),
                  tensor("max_tokens", TensorType::kInt32, true)};
  info_.outputs = {tensor("text_output", TensorType::kBytes, false),
                   tensor("score", TensorType::kFp32, false)};
  info_.parameters = {{"beam_size", absl::StrCat(config_.search.beam_size)},
                      {"length_penalty", absl::StrCat(config_.search.length_penalty)},
                      {"max_source_tokens", absl::StrCat(config_.encoder.max_tokens)},
                      {"max_tokens", absl::StrCat(longest())},
                      {"source_lang", config_.text.source_lang},
                      {"target_lang", config_.text.target_lang}};
}

absl::StatusOr<int64_t> EvaTranslationModel::CountTokens(const Inputs& inputs) const {
  const absl::StatusOr<std::vector<TranslationTask>> tasks = MakeTasks(inputs);
  if (!tasks.ok()) return tasks.status();
  int64_t sum = 0;
  for (const TranslationTask& task : *tasks) {
    sum += std::ssize(task.source) + task.search.beam_size;
  }
  return sum;
}

absl::StatusOr<std::vector<TranslationTask>> EvaTranslationModel::MakeTasks(
    const Inputs& inputs) const {
  const absl::StatusOr<std::vector<std::string_view>> texts = ReadTextRows(inputs[kTextInput]);
  if (!texts.ok()) return texts.status();
  std::vector<TranslationTask> tasks;
  int64_t slots = 0;
  for (size_t row = 0; row < texts->size(); ++row) {
    absl::StatusOr<TranslationTask> task = MakeTask(inputs, (*texts)[row], row);
    if (!task.ok()) return task.status();
    slots += MaxSlots(task->search);
    tasks.push_back(*std::move(task));
  }
  if (slots <= kMaxRequestSlots) return tasks;
  return absl::InvalidArgumentError(
      absl::StrCat("text_input: got ", texts->size(), " rows whose beam_size times max_tokens is ",
                   slots, " together, allowed are ", kMaxRequestSlots));
}

absl::StatusOr<std::vector<Outputs>> EvaTranslationModel::Run(
    std::span<const Inputs* const> requests) {
  std::vector<TranslationTask> tasks;
  for (const Inputs* inputs : requests) {
    absl::StatusOr<std::vector<TranslationTask>> some = MakeTasks(*inputs);
    if (!some.ok()) return some.status();
    std::ranges::move(*some, std::back_inserter(tasks));
  }
  const absl::StatusOr<std::vector<BeamSearch::Finished>> translations =
      translator_->Run(tasks, is_wanted());
  if (!translations.ok()) return translations.status();
  std::vector<Outputs> results;
  auto translation = translations->begin();
  for (const Inputs* inputs : requests) {
    const int64_t batch = (*inputs)[kTextInput].shape[0];
    OutputTensor texts{.shape = {batch, 1}}, scores{.shape = {batch, 1}};
    for (int64_t row = 0; row < batch; ++row, ++translation) {
      AppendBytesElement(text_.Decode(translation->tokens), texts.data);
      scores.data.append(reinterpret_cast<const char*>(&translation->score), sizeof(float));
    }
    results.push_back({std::move(texts), std::move(scores)});
  }
  return results;
}

absl::StatusOr<TranslationTask> EvaTranslationModel::MakeTask(const Inputs& inputs,
                                                              std::string_view text,
                                                              size_t row) const {
  absl::StatusOr<std::vector<TokenId>> source = ReadSource(text, row);
  if (!source.ok()) return source.status();
  const absl::StatusOr<BeamSearch::Options> search = ReadSearch(inputs, row, source->size());
  if (!search.ok()) return search.status();
  return TranslationTask{*std::move(source), *search};
}

absl::StatusOr<std::vector<TokenId>> EvaTranslationModel::ReadSource(std::string_view text,
                                                                     size_t row) const {
  const std::string where = absl::StrCat("text_input: row ", row);
  std::vector<TokenId> source = text_.Encode(text);
  const auto length = static_cast<int>(source.size());
  if (length == 1) {
    return absl::InvalidArgumentError(absl::StrCat(where, " has no words, needed is at least 1"));
  }
  const int min = config_.encoder.min_tokens(), max = config_.encoder.max_tokens;
  if (length < min || length > max) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, " has ", length, " tokens, </s> included; allowed are ", min, " to ", max));
  }
  if (absl::Status status = translator_->CheckLength(length); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " has ", length, " tokens: ", std::string(status.message())));
  }
  return source;
}

absl::StatusOr<BeamSearch::Options> EvaTranslationModel::ReadSearch(
    const Inputs& inputs, size_t row, size_t num_source_tokens) const {
  const TranslationSearchConfig& usual = config_.search;
  const auto length_penalty = static_cast<float>(usual.length_penalty);
  const BeamSearch::Options search = {
      .beam_size = ElementOr(inputs[kBeamSize], row, usual.beam_size),
      .length_penalty = ElementOr(inputs[kLengthPenalty], row, length_penalty),
      .unk_penalty = static_cast<float>(usual.unk_penalty),
      .max_length = ElementOr(inputs[kMaxTokens], row, UsualLength(config_, num_source_tokens)),
      .min_length = usual.min_len,
      .no_repeat_ngram_size = usual.no_repeat_ngram_size};
  for (const absl::Status& status :
       {CheckRange("beam_size", row, search.beam_size, 1, kMaxBeamSize),
        CheckRange("length_penalty", row, search.length_penalty, -kMaxLengthPenalty,
                   kMaxLengthPenalty),
        CheckRange("max_tokens", row, search.max_length, 1, longest())}) {
    if (!status.ok()) return status;
  }
  if (MaxSlots(search) <= kMaxSlots) return search;
  return absl::InvalidArgumentError(absl::StrCat("beam_size: row ", row, " is ", search.beam_size,
                                                 ", with max_tokens ", search.max_length,
                                                 "; allowed are ", LargestBeam(search.max_length)));
}

// That a row which says nothing about its search may have it, however long it is.
absl::Status CheckUsualSearch(const std::string& file, const EvaTranslationConfig& config) {
  const BeamSearch::Options search = {.beam_size = config.search.beam_size,
                                      .max_length = UsualLength(config, config.encoder.max_tokens)};
  if (MaxSlots(search) <= kMaxSlots) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": generation: \"beam_size\" is ", search.beam_size, ", allowed are 1 to ",
                   LargestBeam(search.max_length), " for translations of up to ", search.max_length,
                   " tokens, by max_len_a, max_len_b and the positions"));
}

// A tensor of a layer or of a part that config.json has no place for, though it would change the
// results.
absl::Status CheckTensors(const Checkpoint& checkpoint, const EvaTranslationConfig& config) {
  const struct {
    const char* tensor;
    bool has_place;
    const char* key;
  } parts[] = {
      {"encoder.embed_positions.weight", config.encoder.has_learned_positions, "positions"},
      {"encoder.layernorm_embedding.weight", config.encoder.has_embedding_norm,
       "layernorm_embedding"},
      {"encoder.layer_norm.weight", config.encoder.normalizes_before, "normalize_before"},
      {"decoder.embed_positions.weight", config.decoder.has_learned_positions, "positions"},
      {"decoder.layernorm_embedding.weight", config.decoder.has_embedding_norm,
       "layernorm_embedding"},
      {"decoder.layer_norm.weight", config.decoder.normalizes_before, "normalize_before"},
      {"decoder.embed_tokens.weight", !config.ties_all_embeddings, "share_all_embeddings"},
      {"decoder.output_projection.weight", !config.ties_output,
       "share_decoder_input_output_embed"}};
  for (const auto& part : parts) {
    if (part.has_place || checkpoint.Find(part.tensor).view == nullptr) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.root_file().string(), ": tensor \"", part.tensor,
                     "\": config.json has no place for it, by what it says of \"", part.key, "\""));
  }
  absl::Status status =
      CheckNoFurtherLayer(checkpoint, "encoder.layers.", config.encoder.num_layers);
  status.Update(CheckNoFurtherLayer(checkpoint, "decoder.layers.", config.decoder.num_layers));
  return status;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaTranslationModel(
    const std::filesystem::path& directory, const nlohmann::json& json, const LoadOptions& options,
    WorkerPool& workers) {
  const absl::StatusOr<EvaTranslationConfig> config =
      ReadEvaTranslationConfig(directory / "config.json", json, options.dtype);
  if (!config.ok()) return config.status();
  absl::Status usable = CheckUsualSearch((directory / "config.json").string(), *config);
  usable.Update(RequireCpu(options.device));
  if (!usable.ok()) return usable;
  absl::StatusOr<TranslationText> text = TranslationText::Load(directory, *config);
  if (!text.ok()) return text.status();
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  if (absl::Status status = CheckTensors(*checkpoint, *config); !status.ok()) return status;

  TensorReader encoder_reader(*checkpoint, "encoder."), decoder_reader(*checkpoint, "decoder.");
  absl::StatusOr<EvaEncoderWeights> encoder =
      ReadEvaEncoderWeights(encoder_reader, config->encoder);
  if (!encoder.ok()) return encoder.status();
  const int64_t num_encoder_parameters = encoder_reader.num_parameters();
  absl::StatusOr<TranslationDecoderWeights> decoder_weights =
      ReadTranslationDecoderWeights(encoder_reader, decoder_reader, *config);
  if (!decoder_weights.ok()) return decoder_weights.status();
  const int64_t weight_bytes = Bytes(*encoder) + Bytes(*decoder_weights);
  absl::StatusOr<std::unique_ptr<TranslationDecoder>> decoder =
      TranslationDecoder::Create(*config, *std::move(decoder_weights), kMaxSlots, workers);
  if (!decoder.ok()) return decoder.status();

  TensorModelInfo info{.architecture = "eva_translation",
                       .num_parameters = num_encoder_parameters + decoder_reader.num_parameters(),
                       .weight_bytes = weight_bytes};
  auto translator = std::make_unique<Translator>(
      std::make_unique<EvaEncoderNetwork>(config->encoder, *std::move(encoder), workers),
      *std::move(decoder), config->decoder.vocab_size, workers);
  return std::make_unique<EvaTranslationModel>(std::move(info), *config, *std::move(text),
                                               std::move(translator));
}

}  // namespace evaserve

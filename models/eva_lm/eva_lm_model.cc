#include "models/eva_lm/eva_lm_model.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/eva_lm/network.h"
#include "models/eva_lm/outputs.h"
#include "models/eva_lm/sequence.h"
#include "models/io/checkpoint.h"
#include "models/io/generation_config.h"
#include "models/text/word_tokenizer.h"

namespace evaserve {
namespace {

// Every sequence of an EvaLmModel is one of these.
EvaLmSequence& SequenceOf(const StepItem& item) {
  return *static_cast<EvaLmSequence*>(item.sequence);
}

struct Parts {
  EvaLmConfig config;
  ModelInfo info;
  std::unique_ptr<WordTokenizer> tokenizer;
  std::unique_ptr<EvaLmNetwork> network;
  std::unique_ptr<EvaLmStates> states;
};

class EvaLmModel final : public Model {
 public:
  EvaLmModel(Parts parts, WorkerPool& workers)
      : parts_(std::move(parts)), outputs_(parts_.config, parts_.network->words(), workers) {}

  const ModelInfo& info() const override { return parts_.info; }
  const Tokenizer& tokenizer() const override { return *parts_.tokenizer; }
  std::unique_ptr<Sequence> NewSequence() override {
    return std::make_unique<EvaLmSequence>(*parts_.states);
  }
  int TokensToBoundary(const Sequence& sequence) const override {
    return static_cast<int>(parts_.config.max_positions - sequence.length());
  }
  int PagesFor(int64_t length) const override { return length > 0 ? 1 : 0; }
  StatePool state_pool() const override { return parts_.states->pages().state(); }
  absl::Status Reserve(Sequence& sequence, int num_tokens) override;
  absl::StatusOr<std::vector<StepResult>> Step(std::span<const StepItem> items) override;

 private:
  Parts parts_;
  EvaLmOutputs outputs_;
  uint64_t num_steps_ = 0;
  std::vector<TokenId> tokens_;
  std::vector<EvaLmPiece> pieces_;
  FloatBuffer hidden_;
};

absl::Status EvaLmModel::Reserve(Sequence& sequence, int num_tokens) {
  if (num_tokens < 1 || num_tokens > TokensToBoundary(sequence)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_tokens is ", num_tokens, "; allowed: from 1 to ", TokensToBoundary(sequence)));
  }
  return static_cast<EvaLmSequence&>(sequence).Reserve();
}

absl::StatusOr<std::vector<StepResult>> EvaLmModel::Step(std::span<const StepItem> items) {
  const EvaLmConfig& config = parts_.config;
  absl::Status status =
      ValidateStep(items, {config.vocab_size, config.max_positions}, ++num_steps_);
  if (!status.ok()) return status;
  tokens_.clear();
  pieces_.clear();
  for (const StepItem& item : items) {
    tokens_.insert(tokens_.end(), item.tokens.begin(), item.tokens.end());
    pieces_.push_back({.state = SequenceOf(item).state(),
                       .position = static_cast<int>(item.sequence->length()),
                       .num_tokens = static_cast<int>(item.tokens.size())});
  }
  float* hidden = hidden_.Get(tokens_.size() * config.size);
  status = parts_.network->Run(tokens_, pieces_, hidden);
  // The step was checked, so what fails here is a bug of ours and none of the caller's.
  if (!status.ok()) return absl::InternalError(status.message());
  for (const StepItem& item : items) {
    SequenceOf(item).Advance(static_cast<int>(item.tokens.size()));
  }
  return outputs_.Compute(items, hidden);
}

// A tensor that config.json has no place for, though it would change the results. Those of
// attention are checked as it is read.
absl::Status CheckTensors(const Checkpoint& checkpoint, const EvaLmConfig& config) {
  const struct {
    const char* tensor;
    bool has_place;
    const char* key;
  } parts[] = {{"layer_norm.weight", config.has_final_norm, "final_norm"},
               {"embed_positions.weight", false, "positions"},
               {"layernorm_embedding.weight", false, "layernorm_embedding"},
               {"output_projection.weight", !config.has_tied_output, "share_input_output_embed"}};
  for (const auto& part : parts) {
    if (part.has_place || checkpoint.Find(part.tensor).view == nullptr) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.root_file().string(), ": tensor \"", part.tensor,
                     "\": config.json has no place for it, by what it says of \"", part.key, "\""));
  }
  return CheckNoFurtherLayer(checkpoint, "layers.", config.num_layers);
}

absl::StatusOr<EvaLmConfig> ReadConfigs(const std::filesystem::path& directory,
                                        const nlohmann::json& json, std::optional<DType> dtype,
                                        SamplingParams& sampling) {
  absl::StatusOr<EvaLmConfig> config = ReadEvaLmConfig(directory / "config.json", json, dtype);
  if (!config.ok()) return config;
  const absl::StatusOr<GenerationConfig> generation =
      ReadGenerationConfig(directory, config->vocab_size);
  if (!generation.ok()) return generation.status();
  if (generation->eos_tokens) config->eos_tokens = *generation->eos_tokens;
  sampling = generation->sampling;
  return config;
}

absl::StatusOr<Dictionary> ReadDictionary(const std::filesystem::path& directory, int vocab_size) {
  absl::StatusOr<Dictionary> dictionary = Dictionary::Read(directory / "dict.txt", vocab_size);
  if (!absl::IsNotFound(dictionary.status())) return dictionary;
  return absl::NotFoundError(absl::StrCat(std::string(dictionary.status().message()),
                                          "; the words are those of the training data"));
}

ModelInfo InfoOf(const EvaLmConfig& config) {
  return {.architecture = "eva_causal_lm",
          .dtype = config.dtype,
          .vocab_size = config.vocab_size,
          .hidden_size = config.size,
          .num_layers = config.num_layers,
          .num_heads = config.num_heads,
          .window = config.attention.window,
          .chunk = config.attention.chunk,
          .max_seq_len = config.max_positions,
          .eos_tokens = config.eos_tokens};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadEvaLmModel(const std::filesystem::path& directory,
                                                      const nlohmann::json& json,
                                                      const LoadOptions& options,
                                                      WorkerPool& workers) {
  Parts parts;
  SamplingParams sampling;
  absl::StatusOr<EvaLmConfig> config = ReadConfigs(directory, json, options.dtype, sampling);
  if (!config.ok()) return config.status();
  if (absl::Status status = RequireCpu(options.device); !status.ok()) return status;
  absl::StatusOr<Dictionary> dictionary = ReadDictionary(directory, config->vocab_size);
  if (!dictionary.ok()) return dictionary.status();
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  if (absl::Status status = CheckTensors(*checkpoint, *config); !status.ok()) return status;
  TensorReader reader(*checkpoint);
  absl::StatusOr<EvaLmWeights> weights = ReadEvaLmWeights(reader, *config);
  if (!weights.ok()) return weights.status();

  parts.info = InfoOf(*config);
  parts.info.num_parameters = reader.num_parameters();
  parts.info.weight_bytes = Bytes(*weights);
  parts.info.default_sampling = std::move(sampling);
  parts.tokenizer = std::make_unique<WordTokenizer>(*std::move(dictionary), config->bos_token);
  parts.network = std::make_unique<EvaLmNetwork>(*config, *std::move(weights), workers);
  absl::StatusOr<std::unique_ptr<EvaLmStates>> states =
      EvaLmStates::Create(parts.network->state_floats(), options.state_bytes);
  if (!states.ok()) return states.status();
  parts.states = *std::move(states);
  parts.config = *std::move(config);
  return std::make_unique<EvaLmModel>(std::move(parts), workers);
}

}  // namespace evaserve

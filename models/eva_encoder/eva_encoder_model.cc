#include "models/eva_encoder/eva_encoder_model.h"

#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/eva_encoder/masked_text.h"
#include "models/eva_encoder/masks.h"
#include "models/eva_encoder/network.h"
#include "models/eva_encoder/outputs.h"
#include "models/eva_encoder/rows.h"
#include "models/float_buffer.h"

namespace evaserve {
namespace {

constexpr int kInputIds = 0, kLengths = 1;
constexpr int kMaskPositions = 2, kTopK = 3;  // with a masked-LM head
constexpr int kTextInput = 4;                 // and with text
// Tokens, padded to windows, that go through the layers together: enough for the kernels, and
// activations that do not grow with the batch.
constexpr int64_t kTokensPerPass = 8192;
// Half of what a message can carry.
constexpr int64_t kMaxOutputBytes = 1 << 30;
constexpr int64_t kMaxRequestTokens = 1 << 19;

using Outputs = TensorModel::Outputs;
using Inputs = TensorModel::Inputs;

class EvaEncoderModel final : public TensorModel {
 public:
  EvaEncoderModel(TensorModelInfo info, std::unique_ptr<EvaEncoderNetwork> network,
                  std::optional<MaskedText> text);

  const TensorModelInfo& info() const override { return info_; }
  absl::StatusOr<int64_t> CountTokens(const Inputs& inputs) const override;
  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override;

 private:
  absl::StatusOr<EncoderRows> ReadRows(const Inputs& inputs) const;
  absl::StatusOr<EncoderTask> MakeTask(const Inputs& inputs) const;
  absl::StatusOr<std::vector<EncoderTask>> MakeTasks(std::span<const Inputs* const> requests) const;
  std::span<const EncoderRow> NextPass(std::span<const EncoderRow> rows) const;
  absl::Status RunPass(std::span<const EncoderRow> rows);

  const EvaEncoderConfig& config() const { return network_->config(); }

  TensorModelInfo info_;
  const std::unique_ptr<EvaEncoderNetwork> network_;
  const std::optional<MaskedText> text_;
  EncoderOutputs outputs_;
  FloatBuffer hidden_;
};

EvaEncoderModel::EvaEncoderModel(TensorModelInfo info, std::unique_ptr<EvaEncoderNetwork> network,
                                 std::optional<MaskedText> text)
    : info_(std::move(info)),
      network_(std::move(network)),
      text_(std::move(text)),
      outputs_(*network_, text_ ? &*text_ : nullptr) {
  const auto add = [&](const char* name, TensorType type, std::vector<int64_t> shape) {
    const bool is_optional = !info_.inputs.empty() || text_;
    info_.inputs.push_back(
        {.name = name, .type = type, .shape = std::move(shape), .is_optional = is_optional});
  };
  add("input_ids", TensorType::kInt64, {-1, -1});
  add("lengths", TensorType::kInt64, {-1});
  if (config().has_masked_lm_head) {
    add("mask_positions", TensorType::kInt64, {-1, -1});
    add("top_k", TensorType::kInt32, {-1, 1});
    info_.parameters["max_top_k"] = absl::StrCat(MaxTopK(config()));
  }
  if (text_) add("text_input", TensorType::kBytes, {-1, 1});
  if (config().mask_token) info_.parameters["mask_token_id"] = absl::StrCat(*config().mask_token);
  info_.outputs = outputs_.specs();
  info_.parameters["min_tokens"] = absl::StrCat(config().min_tokens());
  info_.parameters["max_tokens"] = absl::StrCat(config().max_tokens);
  info_.parameters["vocab_size"] = absl::StrCat(config().vocab_size);
}

absl::StatusOr<int64_t> EvaEncoderModel::CountTokens(const Inputs& inputs) const {
  const absl::StatusOr<EncoderTask> task = MakeTask(inputs);
  if (!task.ok()) return task.status();
  return std::ssize(task->rows.tokens);
}

// The rows of all tasks, one after the other.
std::vector<EncoderRow> RowsOf(std::span<EncoderTask> tasks) {
  std::vector<EncoderRow> rows;
  for (EncoderTask& task : tasks) {
    std::span<const int32_t> tokens = task.rows.tokens;
    for (int64_t i = 0; i < std::ssize(task.rows.lengths); ++i) {
      const int length = task.rows.lengths[i];
      rows.push_back({.task = &task, .index = i, .tokens = tokens.first(length)});
      tokens = tokens.subspan(length);
    }
  }
  return rows;
}

absl::StatusOr<std::vector<Outputs>> EvaEncoderModel::Run(std::span<const Inputs* const> requests) {
  absl::StatusOr<std::vector<EncoderTask>> tasks = MakeTasks(requests);
  if (!tasks.ok()) return tasks.status();
  for (EncoderTask& task : *tasks) outputs_.Allocate(task);
  const std::vector<EncoderRow> all = RowsOf(*tasks);
  for (std::span<const EncoderRow> rows = all; !rows.empty();) {
    const std::span<const EncoderRow> pass = NextPass(rows);
    if (!is_wanted()()) return absl::CancelledError("nobody waits for the outputs");
    if (absl::Status status = RunPass(pass); !status.ok()) return status;
    rows = rows.subspan(pass.size());
  }
  std::vector<Outputs> results;
  for (EncoderTask& task : *tasks) {
    outputs_.WriteGuesses(task);
    results.push_back(std::move(task.outputs));
  }
  return results;
}

absl::StatusOr<EncoderRows> EvaEncoderModel::ReadRows(const Inputs& inputs) const {
  const auto has = [&](int input) { return !inputs[input].shape.empty(); };
  if (!text_ || (has(kInputIds) && !has(kTextInput))) {
    return ReadEncoderRows(inputs[kInputIds], inputs[kLengths], config());
  }
  if (has(kInputIds) || !has(kTextInput)) {
    return absl::InvalidArgumentError(
        absl::StrCat("inputs: got ", has(kInputIds) ? "both" : "neither",
                     " of input_ids and text_input, allowed is one of them"));
  }
  for (int input : {kLengths, kMaskPositions}) {
    if (!has(input)) continue;
    return absl::InvalidArgumentError(absl::StrCat(info_.inputs[input].name,
                                                   ": got it with text_input, allowed is it with ",
                                                   "input_ids; a text has its own"));
  }
  return ReadEncoderTexts(inputs[kTextInput], *text_, config());
}

const char* NameOfRows(const TensorModel::Inputs& inputs) {
  return inputs[kInputIds].shape.empty() ? "text_input" : "input_ids";
}

absl::StatusOr<EncoderTask> EvaEncoderModel::MakeTask(const Inputs& inputs) const {
  absl::StatusOr<EncoderRows> rows = ReadRows(inputs);
  if (!rows.ok()) return rows.status();
  EncoderTask task;
  task.rows = *std::move(rows);
  if (std::ssize(task.rows.tokens) > kMaxRequestTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(NameOfRows(inputs), ": got ", task.rows.lengths.size(), " rows of ",
                     task.rows.tokens.size(), " tokens together, allowed are ", kMaxRequestTokens));
  }
  if (config().has_masked_lm_head) {
    absl::StatusOr<MaskedPlaces> masks =
        ReadMaskedPlaces(inputs[kMaskPositions], inputs[kTopK], task.rows, config());
    if (!masks.ok()) return masks.status();
    task.masks = *std::move(masks);
  }
  outputs_.Shape(inputs, task);
  const int64_t bytes = outputs_.MaxBytes(task);
  if (bytes <= kMaxOutputBytes) return task;
  return absl::InvalidArgumentError(absl::StrCat(
      NameOfRows(inputs), ": ", task.rows.lengths.size(), " rows of up to ", task.rows.longest,
      " tokens, with ", task.masks.columns, " masks and ", task.masks.most,
      " guesses for each, give ", bytes, " bytes of outputs, allowed are ", kMaxOutputBytes));
}

absl::StatusOr<std::vector<EncoderTask>> EvaEncoderModel::MakeTasks(
    std::span<const Inputs* const> requests) const {
  std::vector<EncoderTask> tasks;
  int64_t bytes = 0;
  for (const Inputs* inputs : requests) {
    absl::StatusOr<EncoderTask> task = MakeTask(*inputs);
    if (!task.ok()) return task.status();
    bytes += outputs_.MaxBytes(*task);
    tasks.push_back(*std::move(task));
  }
  if (bytes <= kMaxOutputBytes) return tasks;
  return absl::ResourceExhaustedError(
      absl::StrCat("the batch gives ", bytes, " bytes of outputs, allowed are ", kMaxOutputBytes));
}

std::span<const EncoderRow> EvaEncoderModel::NextPass(std::span<const EncoderRow> rows) const {
  size_t count = 0;
  for (int64_t padded = 0; count < rows.size(); ++count) {
    const auto length = static_cast<int>(rows[count].tokens.size());
    padded += config().RegionsOf(length).num_padded();
    if (count > 0 && padded > kTokensPerPass) break;
  }
  return rows.first(count);
}

absl::Status EvaEncoderModel::RunPass(std::span<const EncoderRow> rows) {
  std::vector<int32_t> tokens;
  std::vector<int> lengths;
  for (const EncoderRow& row : rows) {
    tokens.insert(tokens.end(), row.tokens.begin(), row.tokens.end());
    lengths.push_back(static_cast<int>(row.tokens.size()));
  }
  float* hidden = hidden_.Get(tokens.size() * config().size);
  absl::Status status = network_->Run(tokens, lengths, hidden);
  if (status.ok()) outputs_.Store(rows, hidden);
  return status;
}

// A tensor that config.json has no place for, though it would change the results. Those of
// attention are checked as it is read.
absl::Status CheckTensors(const Checkpoint& checkpoint, const EvaEncoderConfig& config) {
  const struct {
    const char* tensor;
    bool has_place;
    const char* key;
  } parts[] = {{"embed_positions.weight", config.has_learned_positions, "positions"},
               {"layernorm_embedding.weight", config.has_embedding_norm, "layernorm_embedding"},
               {"layer_norm.weight", config.normalizes_before, "normalize_before"}};
  for (const auto& part : parts) {
    if (part.has_place || checkpoint.Find(part.tensor).view == nullptr) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint.root_file().string(), ": tensor \"", part.tensor,
                     "\": config.json has no place for it, by what it says of \"", part.key, "\""));
  }
  return CheckNoFurtherLayer(checkpoint, "layers.", config.num_layers);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorModel>> LoadEvaEncoderModel(
    const std::filesystem::path& directory, const nlohmann::json& json, const LoadOptions& options,
    WorkerPool& workers) {
  absl::StatusOr<EvaEncoderConfig> config =
      ReadEvaEncoderConfig(directory / "config.json", json, options.dtype);
  if (!config.ok()) return config.status();
  if (absl::Status status = RequireCpu(options.device); !status.ok()) return status;
  std::optional<MaskedText> text;
  std::error_code error;
  const std::filesystem::path dictionary = directory / "dict.txt";
  if (config->has_masked_lm_head && std::filesystem::exists(dictionary, error)) {
    absl::StatusOr<MaskedText> loaded = MaskedText::Load(directory, *config);
    if (!loaded.ok()) return loaded.status();
    text = *std::move(loaded);
    config->mask_token = text->mask_token();
  }
  if (error) {
    return absl::InternalError(absl::StrCat(dictionary.string(), ": ", error.message()));
  }
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  if (absl::Status status = CheckTensors(*checkpoint, *config); !status.ok()) return status;
  TensorReader reader(*checkpoint);
  absl::StatusOr<EvaEncoderWeights> weights = ReadEvaEncoderWeights(reader, *config);
  if (!weights.ok()) return weights.status();
  TensorModelInfo info{.architecture = "eva_encoder", .num_parameters = reader.num_parameters()};
  info.weight_bytes = Bytes(*weights);
  return std::make_unique<EvaEncoderModel>(
      std::move(info), std::make_unique<EvaEncoderNetwork>(*config, *std::move(weights), workers),
      std::move(text));
}

}  // namespace evaserve

#include "models/eva_encoder/eva_encoder_model.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/eva_encoder/network.h"
#include "models/float_buffer.h"

namespace evaserve {
namespace {

constexpr int kInputIds = 0, kLengths = 1;                    // inputs
constexpr int kHiddenState = 0, kEmbedding = 1, kLogits = 2;  // outputs
// Tokens, padded to windows, that go through the layers together: enough for the kernels, and
// activations that do not grow with the batch.
constexpr int64_t kTokensPerPass = 8192;
// Likewise for the vocabulary, which is much wider than the layers.
constexpr int64_t kLogitRows = 256;
// Half of what a message can carry.
constexpr int64_t kMaxOutputBytes = 1 << 30;

using Outputs = TensorModel::Outputs;
using Inputs = TensorModel::Inputs;

struct Row {
  Outputs* outputs = nullptr;  // of its request
  int64_t slot = 0;            // of its first token among those of the outputs, padding included
  int64_t index = 0;           // in its request
  int64_t token_begin = 0;     // among the tokens of all requests
  int length = 0;
};

// The rows of all requests, one after the other.
struct Batch {
  std::vector<int32_t> tokens;
  std::vector<Row> rows;
  int64_t output_bytes = 0;  // of all requests
};

int64_t IntegerAt(const InputTensor& tensor, int64_t index) {
  int64_t value;
  std::memcpy(&value, tensor.data.data() + index * sizeof(value), sizeof(value));
  return value;
}

// Of each row.
absl::StatusOr<std::vector<int>> ReadLengths(const Inputs& inputs, const EvaEncoderConfig& config) {
  const InputTensor& given = inputs[kLengths];
  const int64_t batch = inputs[kInputIds].shape[0], columns = inputs[kInputIds].shape[1];
  const auto refuse = [&](const std::string& what, int64_t length, int64_t max) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " ", length, " tokens, allowed are ", config.min_tokens(), " to ", max));
  };
  const bool is_too_long = given.shape.empty() && columns > config.max_tokens;
  if (batch > 0 && (columns < config.min_tokens() || is_too_long)) {
    return refuse("input_ids: rows have", columns, config.max_tokens);
  }
  std::vector<int> lengths;
  const int64_t max = std::min<int64_t>(columns, config.max_tokens);
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t length = given.shape.empty() ? columns : IntegerAt(given, i);
    if (length < config.min_tokens() || length > max) {
      return refuse(absl::StrCat("lengths: row ", i, " has"), length, max);
    }
    lengths.push_back(static_cast<int>(length));
  }
  return lengths;
}

absl::Status CheckToken(int64_t row, int place, int64_t id, const EvaEncoderConfig& config) {
  const std::string what = absl::StrCat("input_ids: row ", row, ", token ", place, " is ", id);
  if (id < 0 || id >= config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ", allowed are 0 to ", config.vocab_size - 1));
  }
  if (id != config.padding_idx) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ", which is padding; allowed after the tokens that lengths counts"));
}

int64_t FloatBytes(const std::vector<int64_t>& shape) {
  int64_t bytes = sizeof(float);
  for (int64_t size : shape) bytes *= size;
  return bytes;
}

float* RowOf(Outputs& outputs, int which, int64_t row, int64_t width) {
  return reinterpret_cast<float*>(outputs[which].data.data()) + row * width;
}

class EvaEncoderModel final : public TensorModel {
 public:
  EvaEncoderModel(TensorModelInfo info, std::unique_ptr<EvaEncoderNetwork> network);

  const TensorModelInfo& info() const override { return info_; }
  absl::StatusOr<int64_t> CountTokens(const Inputs& inputs) const override;
  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override;

 private:
  absl::Status Append(const Inputs& inputs, Outputs& outputs, Batch& batch) const;
  absl::Status AppendRow(const InputTensor& ids, Row row, Batch& batch) const;
  std::span<const Row> NextPass(std::span<const Row> rows) const;
  absl::Status RunPass(const Batch& batch, std::span<const Row> rows);
  void StoreLogits(const float* hidden, std::span<const Row> rows, int64_t num_tokens);

  const EvaEncoderConfig& config() const { return network_->config(); }

  TensorModelInfo info_;
  const std::unique_ptr<EvaEncoderNetwork> network_;
  FloatBuffer hidden_, logits_;
};

EvaEncoderModel::EvaEncoderModel(TensorModelInfo info, std::unique_ptr<EvaEncoderNetwork> network)
    : info_(std::move(info)), network_(std::move(network)) {
  const int64_t size = config().size, vocab_size = config().vocab_size;
  info_.inputs = {
      {.name = "input_ids", .type = TensorType::kInt64, .shape = {-1, -1}},
      {.name = "lengths", .type = TensorType::kInt64, .shape = {-1}, .is_optional = true}};
  info_.outputs = {
      {.name = "last_hidden_state", .type = TensorType::kFp32, .shape = {-1, -1, size}},
      {.name = "embedding", .type = TensorType::kFp32, .shape = {-1, size}}};
  if (config().has_masked_lm_head) {
    info_.outputs.push_back(
        {.name = "logits", .type = TensorType::kFp32, .shape = {-1, -1, vocab_size}});
  }
  info_.parameters = {{"min_tokens", absl::StrCat(config().min_tokens())},
                      {"max_tokens", absl::StrCat(config().max_tokens)},
                      {"vocab_size", absl::StrCat(vocab_size)}};
}

absl::StatusOr<int64_t> EvaEncoderModel::CountTokens(const Inputs& inputs) const {
  Outputs outputs;
  Batch batch;
  if (absl::Status status = Append(inputs, outputs, batch); !status.ok()) return status;
  return std::ssize(batch.tokens);
}

absl::StatusOr<std::vector<Outputs>> EvaEncoderModel::Run(std::span<const Inputs* const> requests) {
  std::vector<Outputs> results(requests.size());
  Batch batch;
  // All is checked before outputs take memory.
  for (size_t i = 0; i < requests.size(); ++i) {
    absl::Status status = Append(*requests[i], results[i], batch);
    if (!status.ok()) return status;
  }
  for (Outputs& outputs : results) {
    for (OutputTensor& output : outputs) output.data.resize(FloatBytes(output.shape));
  }
  for (std::span<const Row> rows = batch.rows; !rows.empty();) {
    const std::span<const Row> pass = NextPass(rows);
    if (absl::Status status = RunPass(batch, pass); !status.ok()) return status;
    rows = rows.subspan(pass.size());
  }
  return results;
}

absl::Status EvaEncoderModel::Append(const Inputs& inputs, Outputs& outputs, Batch& batch) const {
  const absl::StatusOr<std::vector<int>> lengths = ReadLengths(inputs, config());
  if (!lengths.ok()) return lengths.status();
  const auto num_rows = static_cast<int64_t>(lengths->size());
  const int64_t longest = num_rows == 0 ? 0 : *std::ranges::max_element(*lengths);
  int64_t bytes = 0;
  for (const TensorSpec& spec : info_.outputs) {
    std::vector<int64_t> shape = spec.shape;
    shape[0] = num_rows;
    if (shape.size() == 3) shape[1] = longest;
    bytes += FloatBytes(shape);
    outputs.push_back({std::move(shape), ""});
  }
  if (bytes > kMaxOutputBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("input_ids: ", num_rows, " rows of up to ", longest, " tokens give ", bytes,
                     " bytes of outputs, allowed are ", kMaxOutputBytes));
  }
  batch.output_bytes += bytes;
  if (batch.output_bytes > kMaxOutputBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the batch gives ", batch.output_bytes,
                                                     " bytes of outputs, allowed are ",
                                                     kMaxOutputBytes));
  }
  for (int64_t i = 0; i < num_rows; ++i) {
    const Row row = {.outputs = &outputs,
                     .slot = i * longest,
                     .index = i,
                     .token_begin = static_cast<int64_t>(batch.tokens.size()),
                     .length = (*lengths)[i]};
    if (absl::Status status = AppendRow(inputs[kInputIds], row, batch); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status EvaEncoderModel::AppendRow(const InputTensor& ids, Row row, Batch& batch) const {
  if (absl::Status status = network_->CheckLength(row.length); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("input_ids: row ", row.index, " has ",
                                                   row.length,
                                                   " tokens: ", std::string(status.message())));
  }
  for (int i = 0; i < row.length; ++i) {
    const int64_t id = IntegerAt(ids, row.index * ids.shape[1] + i);
    if (absl::Status status = CheckToken(row.index, i, id, config()); !status.ok()) return status;
    batch.tokens.push_back(static_cast<int32_t>(id));
  }
  batch.rows.push_back(row);
  return absl::OkStatus();
}

std::span<const Row> EvaEncoderModel::NextPass(std::span<const Row> rows) const {
  size_t count = 0;
  for (int64_t padded = 0; count < rows.size(); ++count) {
    padded += config().RegionsOf(rows[count].length).num_padded();
    if (count > 0 && padded > kTokensPerPass) break;
  }
  return rows.first(count);
}

// Copies `values`, which begin at token `begin` of all requests, to where they belong in an output.
void Scatter(const float* values, int64_t begin, int64_t count, int64_t width, int which,
             std::span<const Row> rows) {
  for (const Row& row : rows) {
    const int64_t from = std::max(begin, row.token_begin);
    const int64_t to = std::min(begin + count, row.token_begin + row.length);
    if (from >= to) continue;
    std::memcpy(RowOf(*row.outputs, which, row.slot + from - row.token_begin, width),
                values + (from - begin) * width, (to - from) * width * sizeof(float));
  }
}

absl::Status EvaEncoderModel::RunPass(const Batch& batch, std::span<const Row> rows) {
  const int64_t size = config().size, begin = rows.front().token_begin;
  const int64_t count = rows.back().token_begin + rows.back().length - begin;
  std::vector<int> lengths;
  for (const Row& row : rows) lengths.push_back(row.length);
  float* hidden = hidden_.Get(count * size);
  absl::Status status =
      network_->Run(std::span(batch.tokens).subspan(begin, count), lengths, hidden);
  if (!status.ok()) return status;
  Scatter(hidden, begin, count, size, kHiddenState, rows);
  for (const Row& row : rows) {
    MeanOfRows(hidden + (row.token_begin - begin) * size, 1, row.length, config().size,
               RowOf(*row.outputs, kEmbedding, row.index, size));
  }
  if (config().has_masked_lm_head) StoreLogits(hidden, rows, count);
  return absl::OkStatus();
}

void EvaEncoderModel::StoreLogits(const float* hidden, std::span<const Row> rows,
                                  int64_t num_tokens) {
  const int64_t vocab_size = config().vocab_size;
  float* logits = logits_.Get(std::min(num_tokens, kLogitRows) * vocab_size);
  for (int64_t done = 0; done < num_tokens; done += kLogitRows) {
    const int64_t count = std::min(num_tokens - done, kLogitRows);
    network_->ComputeLogits(hidden + done * config().size, static_cast<int>(count), logits);
    Scatter(logits, rows.front().token_begin + done, count, vocab_size, kLogits, rows);
  }
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
  const absl::StatusOr<EvaEncoderConfig> config =
      ReadEvaEncoderConfig(directory / "config.json", json, options.dtype);
  if (!config.ok()) return config.status();
  if (absl::Status status = RequireCpu(options.device); !status.ok()) return status;
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  if (absl::Status status = CheckTensors(*checkpoint, *config); !status.ok()) return status;
  TensorReader reader(*checkpoint);
  absl::StatusOr<EvaEncoderWeights> weights = ReadEvaEncoderWeights(reader, *config);
  if (!weights.ok()) return weights.status();
  TensorModelInfo info{.architecture = "eva_encoder", .num_parameters = reader.num_parameters()};
  info.weight_bytes = Bytes(*weights);
  return std::make_unique<EvaEncoderModel>(
      std::move(info), std::make_unique<EvaEncoderNetwork>(*config, *std::move(weights), workers));
}

}  // namespace evaserve

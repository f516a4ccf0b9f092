#include "models/package/joined_batch.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace evaserve {
namespace {

// Which of `specs` are in `names`.
absl::StatusOr<std::vector<bool>> Mark(const std::vector<TensorSpec>& specs,
                                       const std::vector<std::string>& names, const char* what) {
  std::vector<bool> marks(specs.size());
  for (const std::string& name : names) {
    const auto spec = std::ranges::find(specs, name, &TensorSpec::name);
    if (spec == specs.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"ragged\": got ", what, " \"", name, "\", there are: ",
                       absl::StrJoin(specs, ", ", [](std::string* out, const TensorSpec& one) {
                         absl::StrAppend(out, one.name);
                       })));
    }
    if (spec->shape.size() < 2 || spec->shape[1] != -1) {
      return absl::InvalidArgumentError(absl::StrCat("\"ragged\": the shape of ", what, " \"", name,
                                                     "\" is ", ShapeText(spec->shape),
                                                     ", allowed is one that begins with -1, -1"));
    }
    marks[spec - specs.begin()] = true;
  }
  return marks;
}

int64_t NumElements(std::span<const int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  return elements;
}

// Dimensions in front of those that must agree: rows, and tokens where they are ragged.
size_t NumJoined(bool is_ragged) { return is_ragged ? 2 : 1; }

// C++ has no meaning for another one, and compiled programs rely on it.
bool IsNoBool(char byte) { return static_cast<uint8_t>(byte) > 1; }

}  // namespace

absl::StatusOr<JoinPlan> MakeJoinPlan(PackageConfig config, const RaggedTensors& ragged) {
  absl::StatusOr<std::vector<bool>> inputs = Mark(config.inputs, ragged.inputs, "input");
  if (!inputs.ok()) return inputs.status();
  absl::StatusOr<std::vector<bool>> outputs = Mark(config.outputs, ragged.outputs, "output");
  if (!outputs.ok()) return outputs.status();
  if (ragged.inputs.empty() && !ragged.outputs.empty()) {
    return absl::InvalidArgumentError("\"ragged\": outputs, but no inputs");
  }
  return JoinPlan{std::move(config), *std::move(inputs), *std::move(outputs), !ragged.empty()};
}

int64_t NumRaggedTokens(const JoinPlan& plan, const TensorModel::Inputs& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!plan.is_ragged_input[i]) continue;
    // Dimensions that no data belongs to may be of any size.
    return inputs[i].data.empty() ? 0 : inputs[i].shape[0] * inputs[i].shape[1];
  }
  return 0;
}

absl::Status CheckInputs(const JoinPlan& plan, const TensorModel::Inputs& inputs) {
  const int64_t tokens = NumRaggedTokens(plan, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool is_bool = plan.config.inputs[i].type == TensorType::kBool;
    if (is_bool && std::ranges::any_of(inputs[i].data, IsNoBool)) {
      return absl::InvalidArgumentError(
          absl::StrCat(plan.config.inputs[i].name, ": got bytes above 1, a BOOL is 0 or 1"));
    }
    if (!plan.is_ragged_input[i]) continue;
    const std::vector<int64_t>& shape = inputs[i].shape;
    if (!inputs[i].data.empty() && shape[0] * shape[1] == tokens) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        plan.config.inputs[i].name, ": got shape ", ShapeText(shape), ", allowed is ",
        tokens == 0 ? "at least 1 token in a row"
                    : absl::StrCat(tokens / shape[0], " tokens in a row, as in others")));
  }
  return absl::OkStatus();
}

std::vector<std::vector<size_t>> GroupByShape(
    const JoinPlan& plan, std::span<const TensorModel::Inputs* const> requests) {
  std::map<std::vector<int64_t>, size_t> places;  // of the shapes, in `groups`
  std::vector<std::vector<size_t>> groups;
  for (size_t r = 0; r < requests.size(); ++r) {
    std::vector<int64_t> key;
    for (size_t i = 0; i < requests[r]->size(); ++i) {
      const std::vector<int64_t>& shape = (*requests[r])[i].shape;
      key.insert(key.end(),
                 shape.begin() + static_cast<std::ptrdiff_t>(NumJoined(plan.is_ragged_input[i])),
                 shape.end());
    }
    const auto [place, is_new] = places.emplace(std::move(key), groups.size());
    if (is_new) groups.emplace_back();
    groups[place->second].push_back(r);
  }
  return groups;
}

std::byte* JoinedBatch::Memory(size_t input, int64_t bytes) {
  memory_.resize(static_cast<size_t>(plan_.num_program_inputs()));
  const size_t floats = (static_cast<size_t>(bytes) + sizeof(float) - 1) / sizeof(float);
  return reinterpret_cast<std::byte*>(memory_[input].Get(std::max<size_t>(floats, 1)));
}

std::span<const ProgramTensor> JoinedBatch::Join(
    std::span<const TensorModel::Inputs* const> requests) {
  rows_.clear();
  all_ = {};
  for (const TensorModel::Inputs* inputs : requests) {
    const int64_t count = (*inputs)[0].shape[0], tokens = NumRaggedTokens(plan_, *inputs);
    rows_.push_back({count, tokens / count});
    all_.count += count;
    all_.tokens += tokens;
  }
  joined_.clear();
  for (size_t i = 0; i < plan_.config.inputs.size(); ++i) {
    const bool is_ragged = plan_.is_ragged_input[i];
    const std::vector<int64_t>& first = (*requests[0])[i].shape;
    ProgramTensor tensor{plan_.config.inputs[i].type, {is_ragged ? all_.tokens : all_.count}};
    tensor.shape.insert(tensor.shape.end(),
                        first.begin() + static_cast<std::ptrdiff_t>(NumJoined(is_ragged)),
                        first.end());
    tensor.data = Memory(i, NumElements(tensor.shape) * ElementBytes(tensor.type));
    std::byte* to = tensor.data;
    for (const TensorModel::Inputs* inputs : requests) {
      const std::string_view data = (*inputs)[i].data;
      std::memcpy(to, data.data(), data.size());
      to += data.size();
    }
    joined_.push_back(std::move(tensor));
  }
  if (plan_.has_lengths) {
    std::byte* const data = Memory(joined_.size(), all_.count * ElementBytes(TensorType::kInt64));
    auto* length = reinterpret_cast<int64_t*>(data);
    for (const Rows& rows : rows_) length = std::fill_n(length, rows.count, rows.tokens);
    joined_.push_back({TensorType::kInt64, {all_.count}, data});
  }
  return joined_;
}

absl::Status JoinedBatch::CheckOutput(size_t index, const ProgramTensor& output) const {
  const TensorSpec& spec = plan_.config.outputs[index];
  // A ragged output has rows and tokens in one dimension.
  const bool is_ragged = plan_.is_ragged_output[index];
  std::vector<int64_t> want = spec.shape;
  if (is_ragged) want.erase(want.begin());
  want[0] = is_ragged ? all_.tokens : all_.count;
  bool fits = output.type == spec.type && output.shape.size() == want.size();
  for (size_t i = 0; fits && i < want.size(); ++i) {
    fits = want[i] == -1 || want[i] == output.shape[i];
  }
  if (fits) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "output ", spec.name, " of the package is ", Name(output.type), " ", ShapeText(output.shape),
      ", for this batch config.json declares ", Name(spec.type), " ", ShapeText(want)));
}

absl::StatusOr<std::vector<TensorModel::Outputs>> JoinedBatch::Split(
    std::span<const ProgramTensor> outputs) const {
  if (outputs.size() != plan_.config.outputs.size()) {
    return absl::InternalError(absl::StrCat("the package gives ", outputs.size(),
                                            " outputs, config.json declares ",
                                            plan_.config.outputs.size()));
  }
  std::vector<TensorModel::Outputs> split(rows_.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (absl::Status status = CheckOutput(i, outputs[i]); !status.ok()) return status;
    const std::span<const int64_t> rest = std::span(outputs[i].shape).subspan(1);
    const int64_t bytes = NumElements(rest) * ElementBytes(outputs[i].type);
    const auto* from = reinterpret_cast<const char*>(outputs[i].data);
    for (size_t r = 0; r < rows_.size(); ++r) {
      OutputTensor& output = split[r].emplace_back();
      output.shape = {rows_[r].count};
      if (plan_.is_ragged_output[i]) output.shape.push_back(rows_[r].tokens);
      const int64_t size = NumElements(output.shape) * bytes;
      output.shape.insert(output.shape.end(), rest.begin(), rest.end());
      output.data.assign(from, static_cast<size_t>(size));
      from += size;
    }
  }
  return split;
}

}  // namespace evaserve

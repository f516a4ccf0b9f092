#include "models/eva_encoder/rows.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/text/text_rows.h"

namespace evaserve {
namespace {

absl::Status CheckCut(const char* input, int64_t row, int length, const EvaEncoderConfig& config) {
  absl::Status status = Validate(config.RegionsOf(length));
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(input, ": row ", row, " has ", length,
                                                 " tokens: ", std::string(status.message())));
}

absl::StatusOr<std::vector<int>> ReadLengths(const InputTensor& input_ids, const InputTensor& given,
                                             const EvaEncoderConfig& config) {
  const int64_t num_rows = input_ids.shape[0], columns = input_ids.shape[1];
  const auto refuse = [&](const std::string& what, int64_t length, int64_t max) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " ", length, " tokens, allowed are ", config.min_tokens(), " to ", max));
  };
  const bool is_too_long = given.shape.empty() && columns > config.max_tokens;
  if (num_rows > 0 && (columns < config.min_tokens() || is_too_long)) {
    return refuse("input_ids: rows have", columns, config.max_tokens);
  }
  std::vector<int> lengths;
  const int64_t max = std::min<int64_t>(columns, config.max_tokens);
  for (int64_t row = 0; row < num_rows; ++row) {
    const int64_t length = given.shape.empty() ? columns : ElementAt<int64_t>(given, row);
    if (length < config.min_tokens() || length > max) {
      return refuse(absl::StrCat("lengths: row ", row, " has"), length, max);
    }
    absl::Status status = CheckCut("input_ids", row, static_cast<int>(length), config);
    if (!status.ok()) return status;
    lengths.push_back(static_cast<int>(length));
  }
  return lengths;
}

absl::Status RefuseToken(int64_t row, int place, int64_t id, const EvaEncoderConfig& config) {
  const std::string what = absl::StrCat("input_ids: row ", row, ", token ", place, " is ", id);
  if (id == config.padding_idx) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ", which is padding; allowed after the tokens that lengths counts"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, ", allowed are 0 to ", config.vocab_size - 1));
}

}  // namespace

absl::StatusOr<EncoderRows> ReadEncoderRows(const InputTensor& input_ids,
                                            const InputTensor& lengths,
                                            const EvaEncoderConfig& config) {
  absl::StatusOr<std::vector<int>> of_rows = ReadLengths(input_ids, lengths, config);
  if (!of_rows.ok()) return of_rows.status();
  EncoderRows rows{.tokens = {}, .lengths = *std::move(of_rows)};
  if (!rows.lengths.empty()) rows.longest = *std::ranges::max_element(rows.lengths);
  for (int64_t row = 0; row < std::ssize(rows.lengths); ++row) {
    for (int i = 0; i < rows.lengths[row]; ++i) {
      const auto id = ElementAt<int64_t>(input_ids, row * input_ids.shape[1] + i);
      if (id < 0 || id >= config.vocab_size || id == config.padding_idx) {
        return RefuseToken(row, i, id, config);
      }
      rows.tokens.push_back(static_cast<int32_t>(id));
    }
  }
  return rows;
}

absl::StatusOr<EncoderRows> ReadEncoderTexts(const InputTensor& text_input, const MaskedText& text,
                                             const EvaEncoderConfig& config) {
  const absl::StatusOr<std::vector<std::string_view>> texts = ReadTextRows(text_input);
  if (!texts.ok()) return texts.status();
  EncoderRows rows;
  for (size_t row = 0; row < texts->size(); ++row) {
    const std::vector<TokenId> tokens = text.Encode((*texts)[row]);
    const auto length = static_cast<int>(tokens.size());
    if (length < config.min_tokens() || length > config.max_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(
          "text_input: row ", row, " has ", length, " tokens, <s> and </s> included; allowed are ",
          config.min_tokens(), " to ", config.max_tokens));
    }
    const absl::Status status = CheckCut("text_input", static_cast<int64_t>(row), length, config);
    if (!status.ok()) return status;
    rows.tokens.insert(rows.tokens.end(), tokens.begin(), tokens.end());
    rows.lengths.push_back(length);
    rows.longest = std::max(rows.longest, length);
  }
  return rows;
}

}  // namespace evaserve

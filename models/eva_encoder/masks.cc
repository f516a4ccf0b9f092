#include "models/eva_encoder/masks.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr int kUsualTopK = 5;
constexpr int kMaxTopK = 1000;

// So a row costs the head at most what all its tokens would.
absl::Status CheckPlaces(std::vector<int64_t> places, size_t row, int length) {
  std::erase(places, -1);
  std::ranges::sort(places);
  if (places.empty()) return absl::OkStatus();
  const auto refuse = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("mask_positions: row ", row, " has ", what...,
                                                   ", allowed are -1 for none, ", "and 0 to ",
                                                   length - 1, " once each"));
  };
  if (places.front() < 0) return refuse(places.front());
  if (places.back() >= length) return refuse(places.back());
  const auto twice = std::ranges::adjacent_find(places);
  return twice == places.end() ? absl::OkStatus() : refuse(*twice, " twice");
}

absl::StatusOr<std::vector<int>> ReadPositions(const InputTensor& mask_positions,
                                               const EncoderRows& rows) {
  const size_t columns = mask_positions.shape[1];
  std::vector<int> positions;
  for (size_t row = 0; row < rows.lengths.size(); ++row) {
    std::vector<int64_t> places(columns);
    for (size_t i = 0; i < columns; ++i) {
      places[i] = ElementAt<int64_t>(mask_positions, row * columns + i);
    }
    absl::Status status = CheckPlaces(places, row, rows.lengths[row]);
    if (!status.ok()) return status;
    positions.insert(positions.end(), places.begin(), places.end());
  }
  return positions;
}

void FindMasks(const EncoderRows& rows, int32_t mask_token, MaskedPlaces& places) {
  std::vector<std::vector<int>> found;
  const int32_t* token = rows.tokens.data();
  for (const int length : rows.lengths) {
    std::vector<int>& of_row = found.emplace_back();
    for (int i = 0; i < length; ++i, ++token) {
      if (*token == mask_token) of_row.push_back(i);
    }
    places.columns = std::max(places.columns, std::ssize(of_row));
  }
  for (std::vector<int>& of_row : found) {
    of_row.resize(places.columns, -1);
    places.positions.insert(places.positions.end(), of_row.begin(), of_row.end());
  }
}

absl::StatusOr<std::vector<int>> ReadTopK(const InputTensor& top_k, size_t num_rows, int max) {
  std::vector<int> counts(num_rows, std::min(kUsualTopK, max));
  if (top_k.shape.empty()) return counts;
  for (size_t row = 0; row < num_rows; ++row) {
    counts[row] = ElementAt<int32_t>(top_k, row);
    if (counts[row] >= 1 && counts[row] <= max) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("top_k: row ", row, " is ", counts[row], ", allowed are 1 to ", max));
  }
  return counts;
}

}  // namespace

int MaxTopK(const EvaEncoderConfig& config) { return std::min(kMaxTopK, config.vocab_size); }

absl::StatusOr<MaskedPlaces> ReadMaskedPlaces(const InputTensor& mask_positions,
                                              const InputTensor& top_k, const EncoderRows& rows,
                                              const EvaEncoderConfig& config) {
  MaskedPlaces places{.most = std::min(kUsualTopK, MaxTopK(config))};
  absl::StatusOr<std::vector<int>> counts = ReadTopK(top_k, rows.lengths.size(), MaxTopK(config));
  if (!counts.ok()) return counts.status();
  places.top_k = *std::move(counts);
  if (!places.top_k.empty()) places.most = *std::ranges::max_element(places.top_k);
  if (mask_positions.shape.empty()) {
    if (config.mask_token) FindMasks(rows, *config.mask_token, places);
    return places;
  }
  absl::StatusOr<std::vector<int>> positions = ReadPositions(mask_positions, rows);
  if (!positions.ok()) return positions.status();
  places.positions = *std::move(positions);
  places.columns = mask_positions.shape[1];
  return places;
}

}  // namespace evaserve

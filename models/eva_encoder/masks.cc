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
  if (mask_positions.shape.empty()) return places;
  absl::StatusOr<std::vector<int>> positions = ReadPositions(mask_positions, rows);
  if (!positions.ok()) return positions.status();
  places.positions = *std::move(positions);
  places.columns = mask_positions.shape[1];
  return places;
}

}  // namespace evaserve

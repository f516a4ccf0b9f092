#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/eva_encoder/rows.h"
#include "models/tensor.h"

namespace evaserve {

// The places of a request whose tokens are to be guessed.
struct MaskedPlaces {
  int64_t columns = 0;         // the places that each row has room for
  std::vector<int> positions;  // [rows, columns], in the row; -1 where there is none
  std::vector<int> top_k;      // guesses for each place of a row
  int most = 0;                // of top_k, or what it is where nobody says
};

// From mask_positions INT64 [n, columns] and top_k INT32 [n, 1], each of which may be absent: the
// places of the config's mask_token, if it has one, and the usual number of guesses.
// InvalidArgument, naming the input, the row, what came and what is allowed.
absl::StatusOr<MaskedPlaces> ReadMaskedPlaces(const InputTensor& mask_positions,
                                              const InputTensor& top_k, const EncoderRows& rows,
                                              const EvaEncoderConfig& config);

// The most guesses that a row may ask for.
int MaxTopK(const EvaEncoderConfig& config);

}  // namespace evaserve

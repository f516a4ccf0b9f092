#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/eva_encoder/config.h"
#include "models/eva_encoder/masked_text.h"
#include "models/tensor.h"

namespace evaserve {

// The rows of a request that an encoder can take: all tokens are in the vocabulary, none is
// padding, and the attention has windows and chunks for every length.
struct EncoderRows {
  std::vector<int32_t> tokens;  // of all rows, one after the other
  std::vector<int> lengths;
  int longest = 0;  // of lengths
};

// From INT64 [n, tokens] and INT64 [n], which may be absent: all tokens are a row's then.
// InvalidArgument, naming the input, the row, what came and what is allowed.
absl::StatusOr<EncoderRows> ReadEncoderRows(const InputTensor& input_ids,
                                            const InputTensor& lengths,
                                            const EvaEncoderConfig& config);

// From texts, BYTES [n, 1].
absl::StatusOr<EncoderRows> ReadEncoderTexts(const InputTensor& text_input, const MaskedText& text,
                                             const EvaEncoderConfig& config);

}  // namespace evaserve

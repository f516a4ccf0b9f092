#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/client.h"

namespace evaserve {

inline constexpr std::string_view kMaskWord = "<mask>";

// What the model says, where nothing is given.
struct FillMaskOptions {
  std::string model;             // empty: the only one served
  std::optional<int32_t> top_k;  // guesses for each mask
};

struct MaskGuess {
  int64_t token = 0;
  std::string word;
  float logprob = 0;
};

// The most likely words first, as if the other masks of the text stayed masks.
using MaskGuesses = std::vector<MaskGuess>;

// Guesses the words behind the masks of all texts in one request to a masked language model: of
// each text, for each of its masks. Errors are the server's, and Internal for an answer that is
// none.
absl::StatusOr<std::vector<std::vector<MaskGuesses>>> FillMasks(Client& client,
                                                                std::span<const std::string> texts,
                                                                const FillMaskOptions& options,
                                                                const CallOptions& call = {});

// `text` with `word` for its mask number `index`, counted from 0. A part of a word ("walk@@") joins
// what comes after it.
std::string WithWord(std::string_view text, size_t index, std::string_view word);

}  // namespace evaserve

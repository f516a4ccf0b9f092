#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/call_options.h"
#include "client/client.h"

namespace evaserve {

// A part of a document that is scored by one request: tokens [begin, end), of which those from
// counted_begin on count; the ones before are there to be looked back at.
struct DocumentPiece {
  size_t begin = 0;
  size_t counted_begin = 0;
  size_t end = 0;
};

// Cuts a document of `size` tokens into pieces of at most `max_piece`, each with `context` before
// what it counts (less where the document begins). Every token counts in exactly one piece.
// Requires context < max_piece. An empty document is one empty piece.
std::vector<DocumentPiece> CutDocument(size_t size, size_t max_piece, size_t context);

struct ScoreDocumentOptions {
  std::string model = "";  // empty: the only model served
  // Tokens before each piece that its own tokens can look back at, where the document is longer
  // than the model takes at once. Absent: half of what the model takes.
  std::optional<size_t> context = std::nullopt;
  // Requests on their way at the same time; at least 1.
  int max_concurrency = 4;
  CallOptions call = {};  // for every request
};

struct DocumentScore {
  double log_likelihood = 0.0;  // natural log, of the whole document
  double bits_per_byte = 0.0;   // -log_likelihood / ln 2 / bytes
  bool tokens_are_bytes = true;
  std::vector<float> logprobs;  // natural log: [bytes], or of a model of words [words and newlines]
  int num_pieces = 0;           // requests that it took
};

// Scores a document of any length, in pieces where it is longer than the model takes at once.
// Errors are those of Client::ListModels() and Client::Score(), InvalidArgument for a context that
// leaves no room in a piece, and Internal if the model splits the document otherwise than we do.
absl::StatusOr<DocumentScore> ScoreDocument(Client& client, std::string_view document,
                                            const ScoreDocumentOptions& options);

}  // namespace evaserve

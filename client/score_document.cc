#include "client/score_document.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// What a request may hold.
struct PieceLimits {
  size_t max_bytes = 0;
  bool tokens_are_bytes = true;
};

absl::StatusOr<PieceLimits> ReadLimits(Client& client, const ScoreDocumentOptions& options) {
  auto models = client.ListModels(options.call);
  if (!models.ok()) return models.status();
  for (const v1::Model& model : *models) {
    const bool is_meant =
        options.model.empty() ? models->size() == 1 : model.name() == options.model;
    // How many words there are the server knows, and refuses too many.
    if (is_meant && model.token() == "word") {
      return PieceLimits{std::numeric_limits<size_t>::max(), false};
    }
    // The first token begins the sequence.
    if (is_meant && model.max_seq_len() > 1) return PieceLimits{model.max_seq_len() - 1, true};
  }
  // Which model is missing, or not ready, the server says better than we could.
  v1::ScoreRequest request;
  request.set_model(options.model);
  request.set_text(" ");
  auto response = client.Score(request, options.call);
  if (!response.ok()) return response.status();
  return absl::InternalError("the server lists no max_seq_len for the model");
}

absl::StatusOr<std::vector<float>> ScorePiece(Client& client, std::string_view document,
                                              const DocumentPiece& piece, bool tokens_are_bytes,
                                              const ScoreDocumentOptions& options) {
  v1::ScoreRequest request;
  request.set_model(options.model);
  request.set_text(std::string(document.substr(piece.begin, piece.end - piece.begin)));
  request.set_per_byte(true);
  auto response = client.Score(request, options.call);
  if (!response.ok()) return response.status();
  if (!tokens_are_bytes)
    return std::vector(response->logprobs().begin(), response->logprobs().end());
  if (static_cast<size_t>(response->logprobs_size()) != piece.end - piece.begin) {
    return absl::InternalError(absl::StrCat("the server sent ", response->logprobs_size(),
                                            " log-probabilities for ", piece.end - piece.begin,
                                            " bytes"));
  }
  return std::vector<float>(response->logprobs().begin() + (piece.counted_begin - piece.begin),
                            response->logprobs().end());
}

// The pieces' log-probabilities in order. After a failure no further piece is sent.
absl::StatusOr<std::vector<std::vector<float>>> ScorePieces(
    Client& client, std::string_view document, const std::vector<DocumentPiece>& pieces,
    bool tokens_are_bytes, const ScoreDocumentOptions& options) {
  std::vector<absl::StatusOr<std::vector<float>>> scores(pieces.size(), absl::CancelledError());
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++) {
      scores[i] = ScorePiece(client, document, pieces[i], tokens_are_bytes, options);
      if (!scores[i].ok()) next = pieces.size();
    }
  };
  const size_t num_threads = std::clamp<size_t>(options.max_concurrency, 1, pieces.size());
  std::vector<std::thread> threads;
  while (threads.size() + 1 < num_threads) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();

  std::vector<std::vector<float>> logprobs;
  for (auto& score : scores) {
    if (!score.ok()) return score.status();
    logprobs.push_back(*std::move(score));
  }
  return logprobs;
}

}  // namespace

std::vector<DocumentPiece> CutDocument(size_t size, size_t max_piece_bytes, size_t context_bytes) {
  std::vector<DocumentPiece> pieces;
  size_t counted_begin = 0;
  do {
    const size_t begin = counted_begin - std::min(context_bytes, counted_begin);
    const size_t end = std::min(size, begin + max_piece_bytes);
    pieces.push_back({.begin = begin, .counted_begin = counted_begin, .end = end});
    counted_begin = end;
  } while (counted_begin < size);
  return pieces;
}

absl::StatusOr<DocumentScore> ScoreDocument(Client& client, std::string_view document,
                                            const ScoreDocumentOptions& options) {
  const absl::StatusOr<PieceLimits> limits = ReadLimits(client, options);
  if (!limits.ok()) return limits.status();
  const size_t context_bytes = options.context_bytes.value_or(limits->max_bytes / 2);
  if (context_bytes >= limits->max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("context_bytes is ", context_bytes,
                                                   ", must be less than the ", limits->max_bytes,
                                                   " bytes that the model takes"));
  }
  const auto pieces = CutDocument(document.size(), limits->max_bytes, context_bytes);
  const auto logprobs = ScorePieces(client, document, pieces, limits->tokens_are_bytes, options);
  if (!logprobs.ok()) return logprobs.status();

  DocumentScore score{.tokens_are_bytes = limits->tokens_are_bytes};
  score.num_pieces = static_cast<int>(pieces.size());
  for (const std::vector<float>& piece : *logprobs) {
    score.logprobs.insert(score.logprobs.end(), piece.begin(), piece.end());
  }
  score.log_likelihood = std::accumulate(score.logprobs.begin(), score.logprobs.end(), 0.0);
  score.bits_per_byte = -score.log_likelihood / std::log(2.0) / document.size();
  return score;
}

}  // namespace evaserve

#include "client/score_document.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/document_tokens.h"

namespace evaserve {
namespace {

// What a request may hold.
struct PieceLimits {
  size_t max_tokens = 0;
  bool tokens_are_bytes = true;
};

absl::StatusOr<PieceLimits> ReadLimits(Client& client, const ScoreDocumentOptions& options) {
  auto models = client.ListModels(options.call);
  if (!models.ok()) return models.status();
  for (const v1::Model& model : *models) {
    const bool is_meant =
        options.model.empty() ? models->size() == 1 : model.name() == options.model;
    if (!is_meant || model.max_seq_len() <= 1) continue;
    // The first token begins the sequence.
    return PieceLimits{model.max_seq_len() - 1, model.token() != "word"};
  }
  // Which model is missing, or not ready, the server says better than we could.
  v1::ScoreRequest request;
  request.set_model(options.model);
  request.set_text(" ");
  auto response = client.Score(request, options.call);
  if (!response.ok()) return response.status();
  return absl::InternalError("the server lists no max_seq_len for the model");
}

absl::StatusOr<std::vector<float>> ScorePiece(Client& client, const DocumentTokens& tokens,
                                              const DocumentPiece& piece,
                                              const ScoreDocumentOptions& options) {
  v1::ScoreRequest request;
  request.set_model(options.model);
  request.set_text(std::string(tokens.Bytes(piece.begin, piece.end)));
  request.set_per_byte(true);
  auto response = client.Score(request, options.call);
  if (!response.ok()) return response.status();
  if (static_cast<size_t>(response->logprobs_size()) != piece.end - piece.begin) {
    return absl::InternalError(absl::StrCat("the server sent ", response->logprobs_size(),
                                            " log-probabilities for ", piece.end - piece.begin,
                                            tokens.are_bytes() ? " bytes" : " words and newlines"));
  }
  return std::vector<float>(response->logprobs().begin() + (piece.counted_begin - piece.begin),
                            response->logprobs().end());
}

// The pieces' log-probabilities in order. After a failure no further piece is sent.
absl::StatusOr<std::vector<std::vector<float>>> ScorePieces(
    Client& client, const DocumentTokens& tokens, const std::vector<DocumentPiece>& pieces,
    const ScoreDocumentOptions& options) {
  std::vector<absl::StatusOr<std::vector<float>>> scores(pieces.size(), absl::CancelledError());
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++) {
      scores[i] = ScorePiece(client, tokens, pieces[i], options);
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

std::vector<DocumentPiece> CutDocument(size_t size, size_t max_piece, size_t context) {
  std::vector<DocumentPiece> pieces;
  size_t counted_begin = 0;
  do {
    const size_t begin = counted_begin - std::min(context, counted_begin);
    const size_t end = std::min(size, begin + max_piece);
    pieces.push_back({.begin = begin, .counted_begin = counted_begin, .end = end});
    counted_begin = end;
  } while (counted_begin < size);
  return pieces;
}

absl::StatusOr<DocumentScore> ScoreDocument(Client& client, std::string_view document,
                                            const ScoreDocumentOptions& options) {
  const absl::StatusOr<PieceLimits> limits = ReadLimits(client, options);
  if (!limits.ok()) return limits.status();
  const size_t context = options.context.value_or(limits->max_tokens / 2);
  if (context >= limits->max_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("context is ", context,
                                                   ", must be less than the ", limits->max_tokens,
                                                   " tokens that the model takes"));
  }
  const DocumentTokens tokens(document, limits->tokens_are_bytes);
  const auto pieces = CutDocument(tokens.size(), limits->max_tokens, context);
  const auto logprobs = ScorePieces(client, tokens, pieces, options);
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

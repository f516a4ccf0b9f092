#include "models/eva_translation/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "models/text/dictionary.h"

namespace evaserve {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

}  // namespace

BeamSearch::BeamSearch(const Options& options) : options_(options), live_(1) {}

bool BeamSearch::IsBetter(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.hypothesis != b.hypothesis ? a.hypothesis < b.hypothesis : a.token < b.token;
}

void BeamSearch::Advance(std::span<const float> log_probs) {
  const size_t beam_size = options_.beam_size;
  const std::vector<Candidate> candidates = Candidates(log_probs);
  std::vector<Hypothesis> next;
  for (size_t i = 0; i < candidates.size() && next.size() < beam_size; ++i) {
    const Candidate& candidate = candidates[i];
    if (candidate.token == Dictionary::kEos) {
      if (i < beam_size && finished_.size() < beam_size) Finish(candidate);
      continue;
    }
    std::vector<TokenId> tokens = live_[candidate.hypothesis].tokens;
    tokens.push_back(candidate.token);
    next.push_back({std::move(tokens), candidate.score, candidate.hypothesis});
  }
  live_ = std::move(next);
  ++length_;
  if (finished_.size() == beam_size) live_.clear();
}

// The best, in their order.
std::vector<BeamSearch::Candidate> BeamSearch::Candidates(std::span<const float> log_probs) const {
  const size_t wanted = size_t{2} * options_.beam_size;
  const auto vocab_size = static_cast<TokenId>(log_probs.size() / live_.size());
  std::vector<Candidate> heap;  // the worst first
  const auto consider = [&](const Candidate& candidate) {
    if (heap.size() == wanted) {
      if (!IsBetter(candidate, heap.front())) return;
      std::ranges::pop_heap(heap, IsBetter);
      heap.pop_back();
    }
    heap.push_back(candidate);
    std::ranges::push_heap(heap, IsBetter);
  };
  const bool must_end = length_ >= options_.max_length;
  for (int i = 0; i < std::ssize(live_); ++i) {
    const float* row = log_probs.data() + int64_t{i} * vocab_size;
    const float score = live_[i].score;
    const std::vector<TokenId> banned = Banned(live_[i].tokens);
    for (TokenId token = 0; token < vocab_size; ++token) {
      const float penalty = token == Dictionary::kUnknown ? options_.unk_penalty : 0.f;
      const float sum = score + (row[token] - penalty);
      // Most end here: NaN, too.
      if (!(sum > kImpossible) || (heap.size() == wanted && sum < heap.front().score)) continue;
      if (must_end ? token == Dictionary::kEos : IsAllowed(token, banned)) {
        consider({sum, i, token});
      }
    }
  }
  std::ranges::sort_heap(heap, IsBetter);
  return heap;
}

bool BeamSearch::IsAllowed(TokenId token, std::span<const TokenId> banned) const {
  if (token == Dictionary::kPad) return false;
  if (token == Dictionary::kEos) return length_ >= options_.min_length;
  return std::ranges::find(banned, token) == banned.end();
}

// What would make an n-gram that the hypothesis has.
std::vector<TokenId> BeamSearch::Banned(const std::vector<TokenId>& tokens) const {
  const int n = options_.no_repeat_ngram_size;
  if (n == 0) return {};
  std::vector<TokenId> all = {Dictionary::kEos};
  all.insert(all.end(), tokens.begin(), tokens.end());
  std::vector<TokenId> banned;
  for (int64_t i = 0; i + n <= std::ssize(all); ++i) {
    if (std::equal(all.end() - (n - 1), all.end(), all.begin() + i)) {
      banned.push_back(all[i + n - 1]);
    }
  }
  return banned;
}

void BeamSearch::Finish(const Candidate& candidate) {
  const double divisor = std::pow(length_ + 1, options_.length_penalty);
  finished_.push_back(
      {live_[candidate.hypothesis].tokens, static_cast<float>(candidate.score / divisor)});
}

BeamSearch::Finished BeamSearch::Best() const {
  if (finished_.empty()) return {.score = kImpossible};
  return *std::ranges::max_element(finished_, {}, &Finished::score);
}

}  // namespace evaserve

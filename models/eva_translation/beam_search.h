#pragma once

#include <span>
#include <vector>

#include "models/tokenizer.h"

namespace evaserve {

// BeamSearch decides which hypotheses of one sentence go on, and when it has enough of them.
//
// It only decides: it knows no model, starts no thread and keeps no tensors. The caller computes
// the log-probabilities of what follows each hypothesis of live() and passes them to Advance():
//
//   BeamSearch search(options);
//   while (!search.is_done()) search.Advance(LogProbabilities(search.live()));
//   Show(search.Best());
//
// Of all continuations of all hypotheses the 2 * beam_size best are candidates. Those among the
// beam_size best that end with </s> are finished, with a score of (sum of log-probabilities) /
// (tokens, </s> included) ^ length_penalty; the beam_size best of those that do not end go on. It
// is done when beam_size hypotheses are finished, or the longest allowed. Of equal candidates the
// one of the earlier hypothesis, then of the lower token comes first.
//
// Source: fairseq's sequence_generator.py and search.py (BeamSearch), of which a sentence gets what
// it would get there in a batch of its own.
class BeamSearch {
 public:
  struct Options {
    int beam_size = 5;
    double length_penalty = 1;
    float unk_penalty = 0;  // taken off the log-probability of <unk>
    int max_length = 200;   // tokens before </s>
    int min_length = 1;     // likewise; max_length goes before it
    // An n-gram of so many tokens never comes twice; 0: it may. </s> at the begin counts as a
    // token, but with 1 a translation can still end, which fairseq's cannot.
    int no_repeat_ngram_size = 0;
  };

  // A beginning of a translation.
  struct Hypothesis {
    std::vector<TokenId> tokens;  // after </s>, with which all begin
    float score = 0;              // sum of log-probabilities
    int parent = 0;               // which of those before it goes on
  };

  // A whole one, without </s>.
  struct Finished {
    std::vector<TokenId> tokens;
    float score = 0;  // divided by the length's power
  };

  explicit BeamSearch(const Options& options);

  // 1 to beam_size, the best first; none when done.
  std::span<const Hypothesis> live() const { return live_; }
  bool is_done() const { return live_.empty(); }

  // `log_probs` [live().size(), vocabulary]; a NaN counts as impossible.
  void Advance(std::span<const float> log_probs);

  // The best, once done. Without tokens and with a score of minus infinity if nothing was possible.
  Finished Best() const;

  // All, in the order in which they were finished.
  std::span<const Finished> finished() const { return finished_; }

 private:
  struct Candidate {
    float score = 0;
    int hypothesis = 0;
    TokenId token = 0;
  };

  static bool IsBetter(const Candidate& a, const Candidate& b);
  std::vector<Candidate> Candidates(std::span<const float> log_probs) const;
  std::vector<TokenId> Banned(const std::vector<TokenId>& tokens) const;
  bool IsAllowed(TokenId token, std::span<const TokenId> banned) const;
  void Finish(const Candidate& candidate);

  const Options options_;
  int length_ = 0;  // tokens of every live hypothesis
  std::vector<Hypothesis> live_;
  std::vector<Finished> finished_;
};

}  // namespace evaserve

#include "models/eva_translation/beam_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "models/text/dictionary.h"

namespace evaserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using Tokens = std::vector<TokenId>;
constexpr TokenId kEos = Dictionary::kEos, kPad = Dictionary::kPad, kUnk = Dictionary::kUnknown;
constexpr float kImpossible = -std::numeric_limits<float>::infinity();

// Log-probabilities of what follows some tokens.
using LanguageModel = std::function<std::vector<float>(const Tokens& tokens)>;

std::vector<float> Normalised(std::vector<float> logits) {
  double sum = 0;
  for (float x : logits) sum += std::exp(double{x});
  for (float& x : logits) x -= static_cast<float>(std::log(sum));
  return logits;
}

// Depends on all tokens.
LanguageModel RandomModel(int vocab_size, uint64_t seed, float spread = 1.5f) {
  return [=](const Tokens& tokens) {
    uint64_t state = seed;
    for (TokenId token : tokens) state = (state ^ (token + 1)) * 0x9e3779b97f4a7c15;
    std::mt19937_64 random(state);
    std::normal_distribution<float> normal(0, spread);
    std::vector<float> logits(vocab_size);
    for (float& x : logits) x = normal(random);
    return Normalised(logits);
  };
}

BeamSearch Search(const BeamSearch::Options& options, const LanguageModel& model) {
  BeamSearch search(options);
  while (!search.is_done()) {
    std::vector<float> log_probs;
    for (const BeamSearch::Hypothesis& hypothesis : search.live()) {
      const std::vector<float> row = model(hypothesis.tokens);
      log_probs.insert(log_probs.end(), row.begin(), row.end());
    }
    search.Advance(log_probs);
  }
  return search;
}

double Score(const Tokens& tokens, const LanguageModel& model, double length_penalty) {
  double sum = 0;
  Tokens done;
  for (TokenId token : tokens) {
    sum += model(done)[token];
    done.push_back(token);
  }
  sum += model(done)[kEos];
  return sum / std::pow(double(tokens.size()) + 1, length_penalty);
}

// All sequences of 1 to max_length tokens that are neither <pad> nor </s>.
std::vector<Tokens> Everything(int vocab_size, int max_length) {
  std::vector<Tokens> all, last = {{}};
  for (int i = 0; i < max_length; ++i) {
    std::vector<Tokens> next;
    for (const Tokens& tokens : last) {
      for (TokenId token = 0; token < vocab_size; ++token) {
        if (token == kPad || token == kEos) continue;
        next.push_back(tokens);
        next.back().push_back(token);
      }
    }
    all.insert(all.end(), next.begin(), next.end());
    last = std::move(next);
  }
  return all;
}

// fairseq's generator as it is written: a table of all scores, sorted; a mask of those that go on.
class Reference {
 public:
  Reference(const BeamSearch::Options& options, const LanguageModel& model)
      : options_(options), model_(model) {}

  std::vector<BeamSearch::Finished> Run() {
    std::vector<std::pair<Tokens, float>> beams = {{{}, 0.f}};
    for (int step = 0; step <= options_.max_length; ++step) {
      const std::vector<Cell> cells = TopCells(beams, step);
      std::vector<std::pair<Tokens, float>> active;
      for (int i = 0; i < std::ssize(cells); ++i) {
        const auto& [tokens, ignored] = beams[cells[i].beam];
        if (cells[i].token == kEos && i < options_.beam_size && !IsFull()) {
          const double divisor = std::pow(step + 1, options_.length_penalty);
          finished_.push_back({tokens, static_cast<float>(cells[i].score / divisor)});
        }
        if (cells[i].token == kEos || std::ssize(active) == options_.beam_size) continue;
        active.push_back({tokens, cells[i].score});
        active.back().first.push_back(cells[i].token);
      }
      if (IsFull() || active.empty()) break;
      beams = std::move(active);
    }
    return finished_;
  }

 private:
  struct Cell {
    float score;
    int beam;
    TokenId token;
  };

  bool IsFull() const { return std::ssize(finished_) == options_.beam_size; }

  std::vector<Cell> TopCells(const std::vector<std::pair<Tokens, float>>& beams, int step) {
    std::vector<Cell> cells;
    for (int beam = 0; beam < std::ssize(beams); ++beam) {
      std::vector<float> lprobs = model_(beams[beam].first);
      lprobs[kPad] = kImpossible;
      lprobs[kUnk] -= options_.unk_penalty;
      for (TokenId token = 0; token < std::ssize(lprobs); ++token) {
        if (step >= options_.max_length && token != kEos) lprobs[token] = kImpossible;
      }
      if (step < options_.min_length) lprobs[kEos] = kImpossible;
      Block(beams[beam].first, lprobs);
      for (TokenId token = 0; token < std::ssize(lprobs); ++token) {
        if (lprobs[token] == kImpossible) continue;
        cells.push_back({beams[beam].second + lprobs[token], beam, token});
      }
    }
    std::ranges::stable_sort(cells, std::greater(), &Cell::score);
    cells.resize(std::min(cells.size(), size_t(2) * options_.beam_size));
    return cells;
  }

  void Block(const Tokens& tokens, std::vector<float>& lprobs) const {
    const int n = options_.no_repeat_ngram_size;
    if (n == 0) return;
    Tokens all = {kEos};
    all.insert(all.end(), tokens.begin(), tokens.end());
    for (TokenId token = 0; token < std::ssize(lprobs); ++token) {
      Tokens longer = all;
      longer.push_back(token);
      if (std::ssize(longer) < n || token == kEos) continue;
      const auto found =
          std::search(longer.begin(), longer.end() - 1, longer.end() - n, longer.end());
      if (found != longer.end() - 1) lprobs[token] = kImpossible;
    }
  }

  const BeamSearch::Options options_;
  const LanguageModel model_;
  std::vector<BeamSearch::Finished> finished_;
};

void ExpectSame(std::span<const BeamSearch::Finished> got,
                std::span<const BeamSearch::Finished> want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
    EXPECT_EQ(got[i].score, want[i].score) << i;
  }
}

TEST(BeamSearchTest, IsFairseqsGenerator) {
  int num_early = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    const BeamSearch::Options options = {.beam_size = 1 + static_cast<int>(seed % 7),
                                         .length_penalty = double(seed % 5) / 2 - 0.5,
                                         .unk_penalty = float(seed % 3) - 1,
                                         .max_length = 1 + static_cast<int>(seed % 11),
                                         .min_length = static_cast<int>(seed % 2),
                                         .no_repeat_ngram_size = static_cast<int>(seed % 4)};
    const LanguageModel model = RandomModel(6 + static_cast<int>(seed % 30), seed);
    const BeamSearch search = Search(options, model);
    ExpectSame(search.finished(), Reference(options, model).Run());
    num_early += search.finished()[0].tokens.size() < size_t(options.max_length);
  }
  EXPECT_GT(num_early, 50);
}

TEST(BeamSearchTest, ABeamOfOneIsGreedy) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const LanguageModel model = RandomModel(20, seed);
    Tokens greedy;
    while (greedy.size() < 30) {
      std::vector<float> row = model(greedy);
      row[kPad] = kImpossible;
      if (greedy.empty()) row[kEos] = kImpossible;
      const auto best = static_cast<TokenId>(std::ranges::max_element(row) - row.begin());
      if (best == kEos) break;
      greedy.push_back(best);
    }
    EXPECT_EQ(Search({.beam_size = 1, .max_length = 30}, model).Best().tokens, greedy);
  }
}

// With room for all of them nothing is cut off.
TEST(BeamSearchTest, AWideBeamFindsTheBestOfAllTranslations) {
  const int vocab_size = 5, max_length = 4;
  const std::vector<Tokens> all = Everything(vocab_size, max_length);
  for (const double length_penalty : {0., 0.6, 1., 3.}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const LanguageModel model = RandomModel(vocab_size, seed);
      const auto score = [&](const Tokens& tokens) { return Score(tokens, model, length_penalty); };
      const BeamSearch search = Search({.beam_size = static_cast<int>(all.size()),
                                        .length_penalty = length_penalty,
                                        .max_length = max_length},
                                       model);
      EXPECT_EQ(search.finished().size(), all.size());
      const Tokens best = *std::ranges::max_element(all, {}, score);
      EXPECT_EQ(search.Best().tokens, best);
      EXPECT_NEAR(search.Best().score, score(best), 1e-5);
    }
  }
}

TEST(BeamSearchTest, ALargerPenaltyGivesLongerTranslations) {
  size_t length_of_none = 0, length_of_large = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto length = [&](double length_penalty) {
      return Search({.beam_size = 4, .length_penalty = length_penalty, .max_length = 12},
                    RandomModel(8, seed))
          .Best()
          .tokens.size();
    };
    EXPECT_LE(length(0), length(10));
    length_of_none += length(0);
    length_of_large += length(10);
  }
  EXPECT_LT(length_of_none, length_of_large);
}

TEST(BeamSearchTest, OfEqualOnesTheLowerTokenComesFirst) {
  const LanguageModel flat = [](const Tokens&) { return std::vector<float>(9, -2.f); };
  BeamSearch search({.beam_size = 3, .max_length = 4});
  search.Advance(flat({}));
  ASSERT_EQ(search.live().size(), 3);
  EXPECT_THAT(search.live()[0].tokens, ElementsAre(0));
  EXPECT_THAT(search.live()[1].tokens, ElementsAre(kUnk));
  EXPECT_THAT(search.live()[2].tokens, ElementsAre(4));
  // Then the earlier hypothesis: all of the first one's come before those of the second.
  search.Advance(std::vector<float>(27, -2.f));
  EXPECT_THAT(search.live(), Each(Field(&BeamSearch::Hypothesis::parent, 0)));
  ASSERT_EQ(search.finished().size(), 1);
  EXPECT_THAT(search.finished()[0].tokens, ElementsAre(0));
}

TEST(BeamSearchTest, NeitherEndsTooEarlyNorTooLate) {
  const LanguageModel ends = [](const Tokens&) { return Normalised({0, 0, 20, 0, 1, 0}); };
  const LanguageModel never_ends = [](const Tokens&) { return Normalised({0, 0, -20, 0, 1, 0}); };
  EXPECT_EQ(Search({.max_length = 9, .min_length = 3}, ends).Best().tokens.size(), 3);
  EXPECT_EQ(Search({.max_length = 9, .min_length = 0}, ends).Best().tokens.size(), 0);
  EXPECT_EQ(Search({.max_length = 9}, never_ends).Best().tokens.size(), 9);
  EXPECT_EQ(Search({.max_length = 2, .min_length = 5}, ends).Best().tokens.size(), 2);
}

TEST(BeamSearchTest, NeverRepeatsAnNGram) {
  const LanguageModel repeats = [](const Tokens&) { return Normalised({-9, 0, -9, -9, 5, 1, 0}); };
  const auto tokens = [&](int n) {
    return Search({.beam_size = 1, .max_length = 6, .no_repeat_ngram_size = n}, repeats)
        .Best()
        .tokens;
  };
  EXPECT_THAT(tokens(0), ElementsAre(4, 4, 4, 4, 4, 4));
  EXPECT_THAT(tokens(2), ElementsAre(4, 4, 5, 4, 6, 4));
  EXPECT_THAT(tokens(1), ElementsAre(4, 5, 6, 0));
}

TEST(BeamSearchTest, AnUnknownWordCostsItsPenalty) {
  const LanguageModel model = [](const Tokens&) { return Normalised({-9, 0, -1, 3, 2}); };
  EXPECT_THAT(Search({.beam_size = 1, .max_length = 1}, model).Best().tokens, ElementsAre(kUnk));
  EXPECT_THAT(Search({.beam_size = 1, .unk_penalty = 1.5f, .max_length = 1}, model).Best().tokens,
              ElementsAre(4));
}

TEST(BeamSearchTest, WhatIsNotANumberIsImpossible) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const LanguageModel broken = [&](const Tokens&) { return std::vector<float>(6, nan); };
  const BeamSearch search = Search({}, broken);
  EXPECT_TRUE(search.Best().tokens.empty());
  EXPECT_EQ(search.Best().score, kImpossible);
  const LanguageModel half = [&](const Tokens&) {
    return std::vector<float>{nan, 0, -1, nan, -1, nan};
  };
  EXPECT_THAT(Search({.beam_size = 2, .max_length = 2}, half).Best().tokens, Each(4));
}

}  // namespace
}  // namespace evaserve

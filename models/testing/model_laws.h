#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "models/model.h"

namespace evaserve {

// Advances the sequence by `tokens`, in as many steps as its boundaries ask for.
inline void FeedTokens(Model& model, Sequence& sequence, std::span<const TokenId> tokens) {
  while (!tokens.empty()) {
    const size_t count =
        std::min(tokens.size(), static_cast<size_t>(model.TokensToBoundary(sequence)));
    ASSERT_TRUE(model.Reserve(sequence, static_cast<int>(count)).ok());
    const StepItem item = {.sequence = &sequence, .tokens = tokens.first(count)};
    ASSERT_TRUE(model.Step({&item, 1}).ok());
    tokens = tokens.subspan(count);
  }
}

// A sequence that has had some tokens, and those that it gets in a step.
struct BatchRow {
  std::vector<TokenId> before;
  std::vector<TokenId> tokens;
};

// The law of Model::Step() on the CPU: what a sequence gives beside others is what it gives alone,
// to the bit.
inline void ExpectABatchIsItsSequencesAlone(Model& model, std::span<const BatchRow> rows) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<StepItem> items;
  const auto add = [&](const BatchRow& row) {
    sequences.push_back(model.NewSequence());
    FeedTokens(model, *sequences.back(), row.before);
    ASSERT_TRUE(model.Reserve(*sequences.back(), static_cast<int>(row.tokens.size())).ok());
    items.push_back({.sequence = sequences.back().get(),
                     .tokens = row.tokens,
                     .targets = row.tokens,
                     .sum_hidden = true,
                     .all_hidden = true,
                     .all_logits = true});
  };
  for (const BatchRow& row : rows) ASSERT_NO_FATAL_FAILURE(add(row));
  const auto batch = model.Step(items);
  ASSERT_TRUE(batch.ok()) << batch.status();

  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_NO_FATAL_FAILURE(add(rows[i]));
    const auto alone = model.Step({&items.back(), 1});
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_EQ((*batch)[i].logits, alone->front().logits) << "row " << i;
    EXPECT_EQ((*batch)[i].hidden, alone->front().hidden) << "row " << i;
    EXPECT_EQ((*batch)[i].hidden_sum, alone->front().hidden_sum) << "row " << i;
    EXPECT_EQ((*batch)[i].target_logprobs, alone->front().target_logprobs) << "row " << i;
  }
}

}  // namespace evaserve

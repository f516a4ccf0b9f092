#include "kernels/cuda/store_plan.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <tuple>

namespace evaserve {
namespace {

// A random ragged batch, whose pages are all different.
struct Batch {
  Batch(int chunk, uint32_t seed) : chunk(chunk), random(seed) {
    sequences.resize(12);
    pages.resize(2 * sequences.size());
    for (size_t i = 0; i < sequences.size(); ++i) {
      CudaStoreSequence& s = sequences[i];
      s.token_begin = num_tokens;
      s.num_tokens = Random(3) == 0 ? Random(2) : Random(400);
      s.slot_begin = Random(300);
      s.summarize = Random(4) != 0;
      s.summary_begin = Random(200);
      s.window_pages = TakePages(pages[2 * i], end(s));
      s.summary_pages = TakePages(pages[2 * i + 1], s.summary_begin + end(s) / chunk);
      num_tokens += s.num_tokens;
    }
    plan = PlanStoreChunks(sequences, chunk);
  }
  Batch(const Batch&) = delete;

  static int end(const CudaStoreSequence& s) { return s.slot_begin + s.num_tokens; }
  int Random(int limit) { return static_cast<int>(random() % limit); }
  PageList TakePages(std::vector<int32_t>& list, int num_slots) {
    for (int i = 0; i < num_slots; i += kCudaPageSlots) list.push_back(next_page += 7);
    return list;
  }
  const CudaStoreSequence& SequenceOf(const CudaChunk& piece) const {
    size_t i = 0;
    while (piece.token >= sequences[i].token_begin + sequences[i].num_tokens) ++i;
    return sequences[i];
  }
  // In the sequence's window.
  int SlotOf(const CudaChunk& piece) const {
    const CudaStoreSequence& s = SequenceOf(piece);
    return s.slot_begin + piece.token - s.token_begin;
  }

  const int chunk;
  std::mt19937 random;
  int num_tokens = 0;
  int32_t next_page = 0;
  std::vector<std::vector<int32_t>> pages;
  std::vector<CudaStoreSequence> sequences;
  std::vector<CudaChunk> plan;
};

class StorePlanTest : public testing::TestWithParam<int> {
 protected:
  template <typename Check>
  void ForManyBatches(Check&& check) {
    for (uint32_t seed = 1; seed <= 50 && !HasFailure(); ++seed) check(Batch(GetParam(), seed));
  }
};

INSTANTIATE_TEST_SUITE_P(Chunks, StorePlanTest, testing::Values(1, 4, 16, 64, 128));

TEST_P(StorePlanTest, HasEveryTokenOnce) {
  ForManyBatches([](const Batch& batch) {
    int next = 0;
    for (const CudaChunk& piece : batch.plan) {
      EXPECT_EQ(piece.token, next);
      EXPECT_GT(piece.num_tokens, 0);
      next = piece.token + piece.num_tokens;
    }
    EXPECT_EQ(next, batch.num_tokens);
  });
}

TEST_P(StorePlanTest, PutsEveryTokenIntoItsSlot) {
  ForManyBatches([](const Batch& batch) {
    for (const CudaChunk& piece : batch.plan) {
      const int slot = batch.SlotOf(piece);
      EXPECT_EQ(piece.page, batch.SequenceOf(piece).window_pages[slot / kCudaPageSlots]);
      EXPECT_EQ(piece.slot, slot % kCudaPageSlots);
    }
  });
}

TEST_P(StorePlanTest, NoPieceLeavesItsChunkOrItsSequence) {
  ForManyBatches([](const Batch& batch) {
    for (const CudaChunk& piece : batch.plan) {
      const CudaStoreSequence& s = batch.SequenceOf(piece);
      EXPECT_EQ(piece.chunk_begin % batch.chunk, 0);
      EXPECT_GE(piece.slot, piece.chunk_begin);
      EXPECT_LE(piece.slot + piece.num_tokens, piece.chunk_begin + batch.chunk);
      EXPECT_LE(piece.token + piece.num_tokens, s.token_begin + s.num_tokens);
    }
  });
}

TEST_P(StorePlanTest, AChunkIsOnePiece) {
  ForManyBatches([](const Batch& batch) {
    std::set<std::tuple<int, int>> seen;
    for (const CudaChunk& piece : batch.plan) {
      EXPECT_TRUE(seen.emplace(piece.page, piece.chunk_begin).second) << piece.token;
    }
  });
}

TEST_P(StorePlanTest, SummarizesWhatGetsCompleteAndNothingElse) {
  ForManyBatches([](const Batch& batch) {
    for (const CudaChunk& piece : batch.plan) {
      const CudaStoreSequence& s = batch.SequenceOf(piece);
      const bool is_complete = piece.slot + piece.num_tokens == piece.chunk_begin + batch.chunk;
      ASSERT_EQ(piece.summary_page >= 0, is_complete && s.summarize) << piece.token;
      if (piece.summary_page < 0) continue;
      const int summary = s.summary_begin + batch.SlotOf(piece) / batch.chunk;
      EXPECT_EQ(piece.summary_page, s.summary_pages[summary / kCudaPageSlots]);
      EXPECT_EQ(piece.summary_slot, summary % kCudaPageSlots);
    }
  });
}

TEST(StorePlanExampleTest, DecodingCompletesAChunkWithItsLastToken) {
  const int32_t window[] = {5, 9}, summaries[] = {3};
  const CudaStoreSequence sequence{40, 1, window, 143, true, summaries, 100};
  const std::vector<CudaChunk> plan = PlanStoreChunks({&sequence, 1}, 16);
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].token, 40);
  EXPECT_EQ(plan[0].num_tokens, 1);
  EXPECT_EQ(plan[0].page, 9);
  EXPECT_EQ(plan[0].slot, 15);
  EXPECT_EQ(plan[0].chunk_begin, 0);
  EXPECT_EQ(plan[0].summary_page, 3);
  EXPECT_EQ(plan[0].summary_slot, 108);
}

TEST(StorePlanExampleTest, NoTokensNoPieces) { EXPECT_TRUE(PlanStoreChunks({}, 16).empty()); }

}  // namespace
}  // namespace evaserve

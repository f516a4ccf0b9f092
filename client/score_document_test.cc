#include "client/score_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "client/fake_inference_server.h"

namespace evaserve {

bool operator==(const DocumentPiece& a, const DocumentPiece& b) {
  return a.begin == b.begin && a.counted_begin == b.counted_begin && a.end == b.end;
}

namespace {

using testing::ElementsAre;

TEST(CutDocumentTest, ADocumentThatFitsIsOnePiece) {
  EXPECT_THAT(CutDocument(10, 10, 5), ElementsAre(DocumentPiece{0, 0, 10}));
}

TEST(CutDocumentTest, LaterPiecesLookBack) {
  EXPECT_THAT(CutDocument(20, 10, 4), ElementsAre(DocumentPiece{0, 0, 10}, DocumentPiece{6, 10, 16},
                                                  DocumentPiece{12, 16, 20}));
}

TEST(CutDocumentTest, WithoutContextPiecesOnlyTouch) {
  EXPECT_THAT(CutDocument(7, 3, 0),
              ElementsAre(DocumentPiece{0, 0, 3}, DocumentPiece{3, 3, 6}, DocumentPiece{6, 6, 7}));
}

TEST(CutDocumentTest, AnEmptyDocumentIsAnEmptyPiece) {
  EXPECT_THAT(CutDocument(0, 3, 1), ElementsAre(DocumentPiece{0, 0, 0}));
}

class ScoreDocumentTest : public testing::Test {
 protected:
  FakeInferenceServer server_;
  Client client_{server_.target()};
};

TEST_F(ScoreDocumentTest, CountsEveryByteOnceWhateverTheContext) {
  std::string document;
  for (int i = 0; i < 100; ++i) document += static_cast<char>(i);

  for (size_t context_bytes : {0, 3, 7}) {
    const auto score = ScoreDocument(client_, document, {.context_bytes = context_bytes});
    ASSERT_TRUE(score.ok()) << score.status();
    EXPECT_NEAR(score->log_likelihood, -4950 / 256.0, 1e-6) << context_bytes;
    EXPECT_NEAR(score->bits_per_byte, 49.5 / 256.0 / std::log(2.0), 1e-6) << context_bytes;
    EXPECT_EQ(score->logprobs[42], -42 / 256.f) << context_bytes;
  }
}

TEST_F(ScoreDocumentTest, AShortDocumentTakesOneRequest) {
  const auto score = ScoreDocument(client_, "12345678", {});

  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_EQ(score->num_pieces, 1);
  EXPECT_EQ(server_.num_scores(), 1);
}

// Its words cannot be counted here, so it is not cut.
TEST_F(ScoreDocumentTest, AModelOfWordsGetsTheDocumentWhole) {
  server_.SetWords();

  const auto score = ScoreDocument(client_, "it is a truth universally", {});

  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_EQ(server_.num_scores(), 1);
  EXPECT_FALSE(score->tokens_are_bytes);
  EXPECT_EQ(score->logprobs.size(), 5u);
  EXPECT_NEAR(score->bits_per_byte, 2.5 / 25 / std::log(2.0), 1e-6);
}

TEST_F(ScoreDocumentTest, RefusesAContextThatLeavesNoRoom) {
  const auto score = ScoreDocument(client_, "12345678", {.context_bytes = 8});

  EXPECT_EQ(score.status(),
            absl::InvalidArgumentError(
                "context_bytes is 8, must be less than the 8 bytes that the model takes"));
}

TEST_F(ScoreDocumentTest, GivesBackTheServersError) {
  EXPECT_EQ(ScoreDocument(client_, "", {}).status(),
            absl::InvalidArgumentError("text has a wrong length"));
}

}  // namespace
}  // namespace evaserve

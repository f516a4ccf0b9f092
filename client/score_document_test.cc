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
    const auto score = ScoreDocument(client_, document, {.context = context_bytes});
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

TEST_F(ScoreDocumentTest, CountsEveryWordOnceWhateverTheContext) {
  server_.SetWords();
  std::string document;
  for (int i = 1; i <= 30; ++i) document += std::string(i, 'a') + (i % 4 == 0 ? " \n" : " ");

  for (size_t context : {0, 3, 7}) {
    const auto score = ScoreDocument(client_, document, {.context = context});
    ASSERT_TRUE(score.ok()) << score.status();
    EXPECT_FALSE(score->tokens_are_bytes);
    ASSERT_EQ(score->logprobs.size(), 37u);  // 30 words, 7 newlines
    EXPECT_NEAR(score->log_likelihood, -465 / 256.0, 1e-6) << context;
    EXPECT_NEAR(score->bits_per_byte, 465 / 256.0 / document.size() / std::log(2.0), 1e-6);
    EXPECT_EQ(score->logprobs[5], -5 / 256.f);
  }
}

TEST_F(ScoreDocumentTest, AModelThatSplitsOtherwiseIsAnError) {
  server_.SetWords();

  EXPECT_EQ(ScoreDocument(client_, "one\vtwo", {}).status(),
            absl::InternalError("the server sent 1 log-probabilities for 2 words and newlines"));
}

TEST_F(ScoreDocumentTest, RefusesAContextThatLeavesNoRoom) {
  const auto score = ScoreDocument(client_, "12345678", {.context = 8});

  EXPECT_EQ(score.status(),
            absl::InvalidArgumentError(
                "context is 8, must be less than the 8 tokens that the model takes"));
}

TEST_F(ScoreDocumentTest, GivesBackTheServersError) {
  EXPECT_EQ(ScoreDocument(client_, "", {}).status(),
            absl::InvalidArgumentError("text has a wrong length"));
}

}  // namespace
}  // namespace evaserve

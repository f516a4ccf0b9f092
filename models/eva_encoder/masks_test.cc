// Guesses for masked tokens: what comes with them, that they are the logits', and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "models/eva_encoder/testing/encoder_test.h"
#include "models/testing/status_matchers.h"
#include "models/token_filters.h"

namespace evaserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
constexpr float kImpossible = -std::numeric_limits<float>::infinity();

class MasksTest : public EncoderTest {
 protected:
  // The outputs of guesses alone.
  TensorModel::Outputs Guess(EncoderRequest& request) {
    request.SetWantedOutputs({kTopTokens, kTopLogprobs});
    return Run(request);
  }

  // Guesses for one place of the first row, as its logits say.
  std::vector<TokenLogprob> FromLogits(const TokenRows& rows, size_t row, int64_t place, size_t k) {
    const EncoderRequest alone(rows[row], 1, std::ssize(rows[row]));
    const std::vector<float> logits = FloatsOf(Run(alone)[kLogits]);
    const auto of_place = std::span(logits).subspan(place * 40, 40);
    std::vector<TokenId> ranking;
    return MostLikely(of_place, k, LogSumExp(of_place), ranking);
  }

  const TokenRows rows_ = {RandomTokens(9, 1), RandomTokens(33, 2), RandomTokens(4, 3)};
};

TEST_F(MasksTest, ARequestWithoutMasksHasNoGuesses) {
  const TensorModel::Outputs outputs = Run(EncoderRequest(rows_));
  EXPECT_THAT(outputs[kTopTokens].shape, ElementsAre(3, 0, 5));
  EXPECT_THAT(outputs[kTopLogprobs].shape, ElementsAre(3, 0, 5));
  EXPECT_EQ(outputs[kTopTokens].data, "");
}

TEST_F(MasksTest, GuessesAreTheLogitsToTheBit) {
  EncoderRequest request(rows_);
  const std::vector<int64_t> positions = {8, -1, 0, 0, 32, -1, -1, -1, -1};
  request.SetMaskPositions(positions);
  const TensorModel::Outputs outputs = Guess(request);
  EXPECT_THAT(outputs[kTopTokens].shape, ElementsAre(3, 3, 5));
  EXPECT_THAT(outputs[kTopLogprobs].shape, ElementsAre(3, 3, 5));
  const auto tokens = ValuesOf<int64_t>(outputs[kTopTokens]);
  const std::vector<float> logprobs = FloatsOf(outputs[kTopLogprobs]);
  for (size_t i = 0; i < positions.size(); ++i) {
    SCOPED_TRACE(i);
    std::vector<TokenLogprob> expected(5, {-1, kImpossible});
    if (positions[i] >= 0) expected = FromLogits(rows_, i / 3, positions[i], 5);
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(tokens[i * 5 + k], expected[k].token);
      EXPECT_EQ(logprobs[i * 5 + k], expected[k].logprob);
    }
  }
}

TEST_F(MasksTest, GuessesAreTheSameWhateverElseIsWanted) {
  EncoderRequest request(rows_);
  request.SetMaskPositions({1, 2, 3});
  const TensorModel::Outputs all = Run(request);
  EXPECT_NE(all[kLogits].data, "");
  const TensorModel::Outputs guesses = Guess(request);
  EXPECT_EQ(guesses[kLogits].data, "");
  EXPECT_EQ(guesses[kTopTokens].data, all[kTopTokens].data);
  EXPECT_EQ(guesses[kTopLogprobs].data, all[kTopLogprobs].data);
  for (size_t which : {kTopTokens, kTopLogprobs}) {
    request.SetWantedOutputs({which});
    EXPECT_EQ(Run(request)[which].data, all[which].data);
  }
}

TEST_F(MasksTest, EachRowHasItsOwnNumberOfGuesses) {
  EncoderRequest request(rows_);
  request.SetMaskPositions({1, 2, 3});
  request.SetTopK({1, 7, 40});
  const TensorModel::Outputs outputs = Guess(request);
  EXPECT_THAT(outputs[kTopTokens].shape, ElementsAre(3, 1, 40));
  const auto tokens = ValuesOf<int64_t>(outputs[kTopTokens]);
  const std::vector<float> logprobs = FloatsOf(outputs[kTopLogprobs]);
  EXPECT_NE(tokens[0], -1);
  EXPECT_THAT(std::span(tokens).subspan(1, 39), Each(-1));
  EXPECT_THAT(std::span(logprobs).subspan(1, 39), Each(kImpossible));
  EXPECT_THAT(std::span(tokens).subspan(47, 33), Each(-1));
  EXPECT_GT(logprobs[46], kImpossible);
  EXPECT_NEAR(LogSumExp(std::span(logprobs).subspan(80)), 0, 1e-5);  // all tokens together
}

// More places than go through the head together, in more tokens than through the layers.
TEST_F(MasksTest, ABatchIsItsRowsToTheBit) {
  TokenRows rows;
  std::vector<int64_t> positions;
  for (int i = 0; i < 300; ++i) {
    const int length = 2 + i * 7 % 63;
    rows.push_back(RandomTokens(length, i));
    positions.insert(positions.end(), {length - 1, i % 3 == 0 ? -1 : 0});
  }
  EncoderRequest request(rows);
  request.SetMaskPositions(positions);
  const TensorModel::Outputs batch = Guess(request);
  for (size_t i = 0; i < rows.size(); ++i) {
    EncoderRequest one(rows[i], 1, std::ssize(rows[i]));
    one.SetMaskPositions({positions[2 * i], positions[2 * i + 1]});
    const TensorModel::Outputs alone = Guess(one);
    for (size_t which : {kTopTokens, kTopLogprobs}) {
      const size_t bytes = alone[which].data.size();
      ASSERT_EQ(batch[which].data.substr(i * bytes, bytes), alone[which].data) << "row " << i;
    }
  }
}

TEST_F(MasksTest, RefusesPlacesThatARowDoesNotHave) {
  EncoderRequest request({2, 3, 4, 5, 6, 7}, 2, 3);
  request.SetLengths({3, 2});
  const auto error_of = [&](std::vector<int64_t> positions) {
    request.SetMaskPositions(std::move(positions));
    return ErrorOf(request);
  };
  const char* allowed = "allowed are -1 for none, and 0 to 1 once each";
  EXPECT_THAT(error_of({0, 2, 2, 0}), IsError(kInvalid, "mask_positions: row 1 has 2,", allowed));
  EXPECT_THAT(error_of({0, 2, -2, 0}), IsError(kInvalid, "mask_positions: row 1 has -2,", allowed));
  EXPECT_THAT(error_of({0, 2, 1, 1}),
              IsError(kInvalid, "mask_positions: row 1 has 1 twice,", allowed));
  EXPECT_THAT(error_of({0, 0, int64_t{1} << 32, -1}), IsError(kInvalid, "row 0 has 0 twice"));
  EXPECT_THAT(error_of({0, int64_t{1} << 32, 1, -1}), IsError(kInvalid, "row 0 has 4294967296"));
  EXPECT_TRUE(error_of({-1, 2, -1, -1}).ok());
}

TEST_F(MasksTest, RefusesNumbersOfGuessesThatThereAreNot) {
  EncoderRequest request({2, 3, 4, 5, 6, 7}, 2, 3);
  request.SetMaskPositions({1, 1});
  for (int32_t top_k : {0, -5, 41}) {
    request.SetTopK({40, top_k});
    EXPECT_THAT(ErrorOf(request), IsError(kInvalid, "top_k: row 1 is " + std::to_string(top_k),
                                          "allowed are 1 to 40"));
  }
  request.SetTopK({1, 40});
  EXPECT_TRUE(ErrorOf(request).ok());
}

TEST_F(MasksTest, RefusesMoreGuessesThanAMessageCarries) {
  const int64_t rows = 2, columns = (int64_t{1} << 30) / (rows * 40 * (12 + 8)) + 1;
  EncoderRequest request(RandomTokens(8, 1), rows, 4);
  request.SetMaskPositions(std::vector<int64_t>(rows * columns, -1));
  request.SetTopK({40, 1});
  request.SetWantedOutputs({kTopTokens, kTopLogprobs});
  EXPECT_THAT(ErrorOf(request), IsError(kInvalid, "40 guesses", "bytes of outputs"));
  request.SetTopK({39, 1});
  EXPECT_TRUE(model_->CountTokens(*request.inputs()).ok());
}

TEST_F(MasksTest, AnEncoderWithoutAHeadDoesNotGuess) {
  Load(TinyEncoderJson());
  EXPECT_EQ(Run(EncoderRequest(rows_)).size(), 2);
}

}  // namespace
}  // namespace evaserve

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>

#include "models/testing/model_runner.h"
#include "models/testing/random_model.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

constexpr char kText[] =
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife. \xe2\x80\x94 Jane Austen, \xff\x00 1813";
const std::string kRealText(kText, sizeof(kText) - 1);

class GenerateTest : public testing::Test {
 protected:
  // Lengths from one byte to several windows.
  static v1::GenerateRequest RequestOfLength(int i) {
    std::string prompt;
    while (static_cast<int>(prompt.size()) <= 5 * i) prompt += kRealText;
    return GreedyRequest(prompt.substr(i, 1 + 5 * i), 20 + i);
  }

  TestServer& server_ = SharedServer();
};

TEST_F(GenerateTest, GivesTheBytesOfTheModelItself) {
  TempDir directory;
  WriteRandomModel(directory.path(), LongTinyConfig());
  LoadedModel direct(directory.path());
  const Tokenizer& tokenizer = direct.model->tokenizer();
  std::string expected;
  for (TokenId token :
       Generate(*direct.model, tokenizer.Encode(kRealText, false), 100, {.temperature = 0})) {
    expected += tokenizer.Decode(token);
  }

  const std::string text = GenerateAll(server_.client(), GreedyRequest(kRealText, 100));

  EXPECT_EQ(text.substr(0, expected.size()), expected);
}

TEST_F(GenerateTest, StreamsTogetherGiveTheSameBytesAsOneByOne) {
  constexpr int kNumStreams = 64;
  std::vector<std::string> one_by_one;
  for (int i = 0; i < kNumStreams; ++i) {
    one_by_one.push_back(GenerateAll(server_.client(), RequestOfLength(i)));
  }

  std::vector<std::string> together(kNumStreams);
  std::vector<std::thread> threads;
  for (int i = 0; i < kNumStreams; ++i) {
    threads.emplace_back(
        [&, i] { together[i] = GenerateAll(server_.client(), RequestOfLength(i)); });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(together, one_by_one);
  EXPECT_GT(server_.Metric("evaserve_step_sequences_sum"),
            server_.Metric("evaserve_step_sequences_count"));
}

TEST_F(GenerateTest, ASeedRepeatsItsText) {
  v1::GenerateRequest request = GreedyRequest(kRealText, 50);
  request.mutable_sampling()->set_temperature(1.0);
  request.mutable_sampling()->set_seed(7);

  const std::string text = GenerateAll(server_.client(), request);

  EXPECT_EQ(GenerateAll(server_.client(), request), text);
  request.mutable_sampling()->set_seed(8);
  EXPECT_NE(GenerateAll(server_.client(), request), text);
}

TEST_F(GenerateTest, TheLastMessageTellsHowItEnded) {
  GenerateStream stream = server_.client().Generate(GreedyRequest("abc", 10));
  v1::GenerateResponse last;
  while (auto response = stream.Next()) last = *response;

  ASSERT_TRUE(stream.Finish().ok());
  EXPECT_EQ(last.finish().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(last.finish().usage().prompt_tokens(), 4u);  // and the beginning of the sequence
  EXPECT_EQ(last.finish().usage().new_tokens(), 10u);
  EXPECT_GT(last.finish().timings().total_seconds(), 0);
}

TEST_F(GenerateTest, AStopStringEndsTheText) {
  const std::string text = GenerateAll(server_.client(), GreedyRequest(kRealText, 60));
  v1::GenerateRequest request = GreedyRequest(kRealText, 60);
  const std::string stop = text.substr(text.size() / 2, 3);
  request.mutable_stopping()->add_stop(stop);

  EXPECT_EQ(GenerateAll(server_.client(), request), text.substr(0, text.find(stop)));
}

TEST_F(GenerateTest, ReportsLogprobsOfEveryToken) {
  v1::GenerateRequest request = GreedyRequest(kRealText, 12);
  request.set_logprobs(true);
  request.set_top_logprobs(3);
  std::vector<v1::GeneratedToken> tokens;
  GenerateStream stream = server_.client().Generate(request);
  while (auto response = stream.Next()) {
    tokens.insert(tokens.end(), response->tokens().begin(), response->tokens().end());
  }

  ASSERT_TRUE(stream.Finish().ok());
  ASSERT_EQ(tokens.size(), 12u);
  for (const v1::GeneratedToken& token : tokens) {
    ASSERT_EQ(token.top_size(), 3);
    EXPECT_EQ(token.top(0).token(), token.chosen().token());
    EXPECT_LE(token.top(1).logprob(), token.top(0).logprob());
  }
}

TEST_F(GenerateTest, ScoreIsTheSumOfItsBytes) {
  v1::ScoreRequest request;
  request.set_text(kRealText);
  request.set_per_byte(true);

  const auto score = server_.client().Score(request);

  ASSERT_TRUE(score.ok()) << score.status();
  ASSERT_EQ(score->logprobs_size(), static_cast<int>(kRealText.size()));
  const double sum = std::accumulate(score->logprobs().begin(), score->logprobs().end(), 0.0);
  EXPECT_NEAR(score->log_likelihood(), sum, 1e-3);
  EXPECT_NEAR(score->bits_per_byte(), -sum / std::log(2.0) / kRealText.size(), 1e-5);
}

// What the model likes best after a prompt, it also scores as such.
TEST_F(GenerateTest, ScoreAgreesWithTheLogprobsOfAGeneration) {
  v1::GenerateRequest generate = GreedyRequest(kRealText, 1);
  generate.set_logprobs(true);
  GenerateStream stream = server_.client().Generate(generate);
  v1::GeneratedToken token;
  while (auto response = stream.Next()) {
    if (response->tokens_size() > 0) token = response->tokens(0);
  }
  ASSERT_TRUE(token.chosen().control_token().empty()) << "choose another prompt";
  v1::ScoreRequest request;
  request.set_text(kRealText + token.chosen().bytes());
  request.set_per_byte(true);

  const auto score = server_.client().Score(request);

  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_NEAR(score->logprobs(static_cast<int>(kRealText.size())), token.chosen().logprob(), 1e-4);
}

TEST_F(GenerateTest, EmbeddingsHaveLengthOneUnlessAskedOtherwise) {
  v1::EmbedRequest request;
  request.set_text(kRealText);
  const auto unit = server_.client().Embed(request);
  request.set_unnormalized(true);
  const auto whole = server_.client().Embed(request);

  ASSERT_TRUE(unit.ok() && whole.ok()) << unit.status() << whole.status();
  ASSERT_EQ(unit->embedding_size(), whole->embedding_size());
  double unit_square = 0;
  double whole_square = 0;
  for (int i = 0; i < unit->embedding_size(); ++i) {
    unit_square += unit->embedding(i) * unit->embedding(i);
    whole_square += whole->embedding(i) * whole->embedding(i);
  }
  EXPECT_NEAR(unit_square, 1.0, 1e-4);
  EXPECT_NEAR(whole->embedding(0), unit->embedding(0) * std::sqrt(whole_square), 1e-4);
}

TEST_F(GenerateTest, ListsItsModel) {
  const auto models = server_.client().ListModels();

  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 1u);
  EXPECT_EQ(models->front().name(), "tiny");
  EXPECT_EQ(models->front().state(), "READY");
  EXPECT_EQ(models->front().dtype(), "float32");
  EXPECT_EQ(models->front().max_seq_len(), static_cast<uint64_t>(LongTinyConfig().max_positions));
}

}  // namespace
}  // namespace evaserve

// A model of words through the server: a small random language model.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/score_document.h"
#include "models/eva_lm/testing/random_lm.h"
#include "models/testing/model_runner.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

constexpr char kText[] = "w5 w17 w39 w40\nw59 w8 unheard w21 w5\n w30 w31";
constexpr int kMaxTokens = 96;

class WordsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TempDir>();
    WriteRandomLm(directory_->path(), TinyLmJson());
    Config config;
    config.models = {{.name = "words", .directory = directory_->path()}};
    server_ = std::make_unique<TestServer>(std::move(config));
  }

  static void TearDownTestSuite() {
    server_.reset();
    directory_.reset();
  }

  // What the model itself says of each token of the text but the first.
  static std::vector<float> OwnLogprobs(const std::string& text) {
    const LoadedModel direct(directory_->path());
    const std::vector<TokenId> tokens = direct.model->tokenizer().Encode(text, false);
    const size_t vocab_size = direct.model->info().vocab_size;
    const Outputs outputs = RunTokens(*direct.model, tokens, OneByOne());
    std::vector<float> logprobs;
    for (size_t i = 1; i < tokens.size(); ++i) {
      logprobs.push_back(outputs.logits[(i - 1) * vocab_size + tokens[i]]);
    }
    return logprobs;
  }

  static Client& client() { return server_->client(); }

  static std::unique_ptr<TempDir> directory_;
  static std::unique_ptr<TestServer> server_;
};

std::unique_ptr<TempDir> WordsTest::directory_;
std::unique_ptr<TestServer> WordsTest::server_;

TEST_F(WordsTest, AGenerationIsTheTextOfTheModelItself) {
  const LoadedModel direct(directory_->path());
  const Tokenizer& tokenizer = direct.model->tokenizer();
  std::string expected;
  for (TokenId token :
       Generate(*direct.model, tokenizer.Encode(kText, false), 60, {.temperature = 0})) {
    expected += tokenizer.Decode(token);
  }
  ASSERT_GE(expected.size(), 8u);

  const std::string text = GenerateAll(client(), GreedyRequest(kText, 60));

  EXPECT_EQ(text.substr(0, expected.size()), expected);
}

TEST_F(WordsTest, StreamsTogetherGiveTheSameTextsAsOneByOne) {
  constexpr int kNumStreams = 24;
  const std::string text(kText);
  const auto request = [&](int i) { return GreedyRequest(text.substr(0, 2 + 2 * i), 20 + i); };
  std::vector<std::string> one_by_one, together(kNumStreams);
  for (int i = 0; i < kNumStreams; ++i) one_by_one.push_back(GenerateAll(client(), request(i)));

  std::vector<std::thread> threads;
  for (int i = 0; i < kNumStreams; ++i) {
    threads.emplace_back([&, i] { together[i] = GenerateAll(client(), request(i)); });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(together, one_by_one);
}

TEST_F(WordsTest, AScoreIsTheModelsOwn) {
  v1::ScoreRequest request;
  request.set_text(kText);
  request.set_per_byte(true);
  const std::vector<float> expected = OwnLogprobs(kText);

  const auto score = client().Score(request);

  ASSERT_TRUE(score.ok()) << score.status();
  ASSERT_EQ(score->logprobs_size(), 13);  // 11 words and 2 newlines
  double sum = 0;
  for (int i = 0; i < score->logprobs_size(); ++i) {
    EXPECT_NEAR(score->logprobs(i), expected[i], 1e-4) << i;
    sum += expected[i];
  }
  EXPECT_NEAR(score->log_likelihood(), sum, 1e-3);
  EXPECT_NEAR(score->bits_per_byte(), -sum / std::log(2.0) / (sizeof(kText) - 1), 1e-3);
  EXPECT_EQ(score->usage().prompt_tokens(), 14u);
}

// Its pieces are cut where the model's words end, at whatever kind of white space.
TEST_F(WordsTest, ADocumentIsScoredWordByWord) {
  std::string document;
  for (const char* space : {" ", "\u00a0", "\r\n", "\u2009\u3000", "\x1c", "\u0085"}) {
    for (int i = 0; i < 40; ++i) document += absl::StrCat("w", 10 + i, space);
  }
  document += "\xff\u200b";  // no white space: a word

  const auto score = ScoreDocument(client(), document, {});

  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_GT(score->num_pieces, 1);
  EXPECT_EQ(score->logprobs.size(), 6 * 40 + 40 + 1u);  // one kind of white space is a token
}

TEST_F(WordsTest, TokensAreReportedAsWords) {
  v1::GenerateRequest request = GreedyRequest(kText, 1);
  request.set_logprobs(true);
  GenerateStream stream = client().Generate(request);
  v1::GeneratedToken token;
  std::string text;
  while (auto response = stream.Next()) {
    if (response->tokens_size() > 0) token = response->tokens(0);
    text += response->text();
  }
  ASSERT_TRUE(stream.Finish().ok());
  EXPECT_EQ(token.chosen().bytes(), text);

  v1::ScoreRequest score_request;
  score_request.set_text(kText + text);
  score_request.set_per_byte(true);
  const auto score = client().Score(score_request);
  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_NEAR(score->logprobs(13), token.chosen().logprob(), 1e-4);
}

TEST_F(WordsTest, ABiasIsOfATokenByItsNumber) {
  v1::GenerateRequest request = GreedyRequest(kText, 3);
  (*request.mutable_sampling()->mutable_logit_bias())[44] = 100;

  EXPECT_EQ(GenerateAll(client(), request), " w44 w44 w44");

  (*request.mutable_sampling()->mutable_logit_bias())[60] = 1;
  GenerateStream stream = client().Generate(request);
  while (stream.Next()) {
  }
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(WordsTest, AStopStringMayEndInsideAWord) {
  v1::GenerateRequest request = GreedyRequest(kText, 3);
  (*request.mutable_sampling()->mutable_logit_bias())[44] = 100;
  request.mutable_stopping()->add_stop("4 w");

  EXPECT_EQ(GenerateAll(client(), request), " w4");
}

TEST_F(WordsTest, GenerationEndsWithTheModelsLongestText) {
  GenerateStream stream = client().Generate(GreedyRequest("w5", 1000));
  v1::GenerateResponse last;
  while (auto response = stream.Next()) last = *response;

  ASSERT_TRUE(stream.Finish().ok());
  EXPECT_EQ(last.finish().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(last.finish().usage().new_tokens(), kMaxTokens - 2u);
}

TEST_F(WordsTest, RefusesTextOfTooManyWords) {
  std::string text;
  for (int i = 0; i < kMaxTokens; ++i) text += "w5 ";
  v1::ScoreRequest request;
  request.set_text(text);

  const auto score = client().Score(request);

  EXPECT_EQ(score.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(score.status().message()),
              testing::HasSubstr("text has 97 tokens, the limit is 96"));
}

TEST_F(WordsTest, TheCommandScoresADocumentOfAnyLength) {
  std::string document;
  for (int i = 0; i < 20; ++i) document.append(kText).append("\n");

  Program json(EVA_PROGRAM, {"score", "-", "--json", "--per-byte", "--server", server_->target()},
               document);
  ASSERT_EQ(json.Wait(), 0) << json.Error();
  const auto score = nlohmann::json::parse(json.Output());
  EXPECT_EQ(score["bytes"], document.size());
  EXPECT_EQ(score["requests"], 5);
  EXPECT_EQ(score["logprobs"].size(), 280u);

  Program text(EVA_PROGRAM, {"score", "-", "--per-byte", "--server", server_->target()}, kText);
  ASSERT_EQ(text.Wait(), 0) << text.Error();
  EXPECT_THAT(text.Output(), testing::HasSubstr("\" unheard\"\n"));
}

TEST_F(WordsTest, EmbedsText) {
  v1::EmbedRequest request;
  request.set_text(kText);

  const auto embedding = client().Embed(request);

  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_EQ(embedding->embedding_size(), 32);
}

TEST_F(WordsTest, TheServerListsWhatATokenIs) {
  const auto models = client().ListModels();

  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 1u);
  EXPECT_EQ(models->front().architecture(), "eva_causal_lm");
  EXPECT_EQ(models->front().token(), "word");
  EXPECT_EQ(models->front().max_seq_len(), uint64_t{kMaxTokens});
}

}  // namespace
}  // namespace evaserve

#include "server/rpc/evaserve_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/testing/fake_model_server.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;
using ::testing::HasSubstr;

// The number of tokens before the answer to `prompt`.
size_t PromptTokens(const std::string& prompt) { return prompt.size() + 1; }

FakeModelServer::Options Speaking(const std::string& text, const std::string& prompt) {
  FakeModelServer::Options options;
  options.model.next_token = Saying(text, PromptTokens(prompt));
  return options;
}

GeneratedText Generate(FakeModelServer& server, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  return ReadAll(*server.evaserve().Generate(&context, request));
}

TEST(GenerateTest, StreamsTheTextAndThenHowItEnded) {
  FakeModelServer server(Speaking("hello world", "ab"));

  const GeneratedText result = Generate(server, GreedyRequest("ab", 100));

  EXPECT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.text, "hello world");
  const v1::Finish& finish = result.last.finish();
  EXPECT_EQ(finish.reason(), v1::FINISH_REASON_EOS);
  EXPECT_EQ(finish.usage().prompt_tokens(), 3u);
  EXPECT_EQ(finish.usage().new_tokens(), 12u);
  EXPECT_EQ(finish.usage().new_bytes(), 11u);
  EXPECT_GT(finish.timings().first_token_seconds(), 0);
  EXPECT_GE(finish.timings().total_seconds(), finish.timings().first_token_seconds());
}

TEST(GenerateTest, EndsAtMaxNewTokens) {
  FakeModelServer server(Speaking("hello world", "ab"));

  const GeneratedText result = Generate(server, GreedyRequest("ab", 4));

  EXPECT_EQ(result.text, "hell");
  EXPECT_EQ(result.last.finish().reason(), v1::FINISH_REASON_LENGTH);
}

TEST(GenerateTest, EndsBeforeAStopString) {
  FakeModelServer server(Speaking("hello world", "ab"));
  v1::GenerateRequest request = GreedyRequest("ab", 100);
  request.mutable_stopping()->add_stop("o w");

  const GeneratedText result = Generate(server, request);

  EXPECT_EQ(result.text, "hell");
  EXPECT_EQ(result.last.finish().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(result.last.finish().stop(), "o w");
}

TEST(GenerateTest, DeliversBytesThatAreNotUtf8) {
  const std::string bytes("\xff\0\xc3", 3);
  FakeModelServer server(Speaking(bytes, "ab"));

  EXPECT_EQ(Generate(server, GreedyRequest("ab", 100)).text, bytes);
}

TEST(GenerateTest, ReportsEachTokenIfAskedTo) {
  FakeModelServer server(Speaking("hi", "ab"));
  v1::GenerateRequest request = GreedyRequest("ab", 100);
  request.set_logprobs(true);
  request.set_top_logprobs(2);
  grpc::ClientContext context;
  auto reader = server.evaserve().Generate(&context, request);

  std::vector<v1::GeneratedToken> tokens;
  for (v1::GenerateResponse message; reader->Read(&message);) {
    tokens.insert(tokens.end(), message.tokens().begin(), message.tokens().end());
  }

  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_EQ(tokens[0].chosen().bytes(), "h");
  EXPECT_FLOAT_EQ(tokens[0].chosen().logprob(), FakeModel::LikelyLogprob());
  EXPECT_EQ(tokens[1].chosen().bytes(), "i");
  EXPECT_EQ(tokens[1].top_size(), 2);
  EXPECT_EQ(tokens[2].chosen().control_token(), "<eos>");
}

TEST(GenerateTest, DeliversEachTokenWithoutWaitingForTheNext) {
  FakeModelServer server(Speaking("abc", "p"));
  server.control().Hold();
  grpc::ClientContext context;
  auto reader = server.evaserve().Generate(&context, GreedyRequest("p", 100));

  for (const char* expected : {"a", "b", "c"}) {
    server.control().AllowSteps(1);
    v1::GenerateResponse message;
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_EQ(message.text(), expected);
  }
  server.control().Release();
  EXPECT_TRUE(ReadAll(*reader).status.ok());
}

TEST(GenerateTest, RefusesABadFieldByName) {
  FakeModelServer server;
  v1::GenerateRequest request = GreedyRequest("ab", 1);
  request.mutable_sampling()->set_top_p(0);

  const grpc::Status status = Generate(server, request).status;

  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("top_p is 0"));
}

TEST(GenerateTest, RefusesAPromptBeyondTheModelsLength) {
  FakeModelServer server;

  const grpc::Status status = Generate(server, GreedyRequest(std::string(4096, 'x'), 1)).status;

  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("prompt has 4097 tokens, the limit is 4095"));
}

TEST(GenerateTest, NamesTheModelsThatThereAre) {
  FakeModelServer server;
  v1::GenerateRequest request = GreedyRequest("ab", 1);
  request.set_model("other");

  const grpc::Status status = Generate(server, request).status;

  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("there are: fake"));
}

TEST(GenerateTest, AFailedStepIsInternalAndTheServerServesOn) {
  FakeModelServer server;
  const TokenId poison = *FakeTokenizer().ByteToken('!');
  server.control().FailIf([poison](std::span<const TokenId> history) {
    return history[1] == poison ? absl::InternalError("broken kernel") : absl::OkStatus();
  });

  const grpc::Status status = Generate(server, GreedyRequest("!", 1)).status;

  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_TRUE(Generate(server, GreedyRequest("ab", 1)).status.ok());
}

TEST(GenerateTest, APassedDeadlineEndsIt) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));
  grpc::ClientContext context;
  context.set_deadline(system_clock::now() + milliseconds(50));

  const GeneratedText result =
      ReadAll(*server.evaserve().Generate(&context, GreedyRequest("ab", 4000)));

  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(server.WaitForMetric("evaserve_requests_in_flight", 0));
  EXPECT_EQ(server.control().live_sequences(), 0);
  EXPECT_LT(server.control().steps().size(), 4000u);
}

TEST(GenerateTest, CancellingFreesTheSequence) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));
  grpc::ClientContext context;
  auto reader = server.evaserve().Generate(&context, GreedyRequest("ab", 4000));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));

  context.TryCancel();

  EXPECT_EQ(ReadAll(*reader).status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server.WaitForMetric(
      "evaserve_requests_total{code=\"CANCELLED\",method=\"Generate\",model=\"fake\"}", 1));
  EXPECT_TRUE(server.WaitForMetric("evaserve_state_pages_used{model=\"fake\"}", 0));
  EXPECT_EQ(server.control().live_sequences(), 0);
  EXPECT_LT(server.control().steps().size(), 4000u);
}

// A client that does not read holds up its own sequence, and nobody else.
TEST(GenerateTest, ASlowReaderRestsItsOwnSequenceOnly) {
  constexpr int kTokens = 3000;
  FakeModelServer server;
  v1::GenerateRequest request = GreedyRequest("slow", kTokens);
  request.set_logprobs(true);
  request.set_top_logprobs(20);  // much data for each token
  grpc::ClientContext context;
  auto slow = server.evaserve().Generate(&context, request);
  ASSERT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 1));

  // Another client is served until its tokens are the only ones that are made.
  const std::string decoded = "evaserve_decode_tokens_total{model=\"fake\"}";
  const TimePoint deadline = Clock::now() + std::chrono::seconds(20);
  bool is_resting = false;
  while (!is_resting && Clock::now() < deadline) {
    const double before = server.MetricValue(decoded);
    ASSERT_TRUE(Generate(server, GreedyRequest("quick", 100)).status.ok());
    is_resting = server.MetricValue(decoded) - before < 110;
  }

  EXPECT_TRUE(is_resting);
  EXPECT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 1));
  const GeneratedText result = ReadAll(*slow);
  EXPECT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.text.size(), static_cast<size_t>(kTokens));
}

TEST(ScoreTest, TellsTheLikelihoodOfTheWholeTextAndOfEachByte) {
  FakeModelServer server(Speaking("abc", ""));
  v1::ScoreRequest request;
  request.set_text("abx");
  request.set_per_byte(true);
  v1::ScoreResponse response;
  grpc::ClientContext context;

  const grpc::Status status = server.evaserve().Score(&context, request, &response);

  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.logprobs_size(), 3);
  EXPECT_FLOAT_EQ(response.logprobs(0), FakeModel::LikelyLogprob());
  EXPECT_FLOAT_EQ(response.logprobs(1), FakeModel::LikelyLogprob());
  EXPECT_FLOAT_EQ(response.logprobs(2), FakeModel::UnlikelyLogprob());
  const double sum = 2.0 * FakeModel::LikelyLogprob() + FakeModel::UnlikelyLogprob();
  EXPECT_NEAR(response.log_likelihood(), sum, 1e-6);
  EXPECT_NEAR(response.bits_per_byte(), -sum / std::log(2.0) / 3, 1e-6);
}

TEST(EmbedTest, GivesAVectorOfLengthOneUnlessAskedNotTo) {
  FakeModelServer server;
  v1::EmbedRequest request;
  request.set_text("ab");
  v1::EmbedResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(server.evaserve().Embed(&context, request, &response).ok());

  request.set_unnormalized(true);
  v1::EmbedResponse raw;
  grpc::ClientContext second;
  ASSERT_TRUE(server.evaserve().Embed(&second, request, &raw).ok());

  ASSERT_EQ(response.embedding_size(), 3);
  double square = 0;
  for (const float value : response.embedding()) square += value * value;
  EXPECT_NEAR(square, 1, 1e-5);
  EXPECT_GT(raw.embedding(0), 1);
}

TEST(UnaryTest, APassedDeadlineFreesTheSequence) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(10));
  v1::ScoreRequest request;
  request.set_text(std::string(4000, 'x'));  // 250 windows, so 2.5 s
  v1::ScoreResponse response;
  grpc::ClientContext context;
  context.set_deadline(system_clock::now() + milliseconds(50));

  const grpc::Status status = server.evaserve().Score(&context, request, &response);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(server.WaitForMetric("evaserve_requests_in_flight", 0));
  EXPECT_EQ(server.control().live_sequences(), 0);
  EXPECT_LT(server.control().steps().size(), 250u);
}

TEST(ListModelsTest, DescribesTheModels) {
  FakeModelServer server;
  v1::ListModelsResponse response;
  grpc::ClientContext context;

  ASSERT_TRUE(server.evaserve().ListModels(&context, {}, &response).ok());

  ASSERT_EQ(response.models_size(), 1);
  EXPECT_EQ(response.models(0).name(), "fake");
  EXPECT_EQ(response.models(0).version(), "1");
  EXPECT_EQ(response.models(0).state(), "READY");
  EXPECT_EQ(response.models(0).dtype(), "float32");
  EXPECT_EQ(response.models(0).max_seq_len(), 4096u);
  EXPECT_EQ(response.models(0).embedding_size(), 3u);
}

}  // namespace
}  // namespace evaserve

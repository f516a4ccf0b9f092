#include "server/rpc/generate_stream_reactor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "server/testing/fake_model_server.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using Piece = FakeModelControl::Piece;
using Stream = grpc::ClientReaderWriter<v1::GenerateStreamRequest, v1::GenerateStreamResponse>;

const std::string kPrompt = "a prompt that comes in pieces, longer than a window of the model";

v1::GenerateStreamRequest BeginWith(uint64_t index, const std::string& prompt,
                                    uint64_t bytes_to_come = 0, uint64_t max_new_tokens = 10) {
  v1::GenerateStreamRequest message;
  message.set_index(index);
  *message.mutable_begin()->mutable_request() = GreedyRequest(prompt, max_new_tokens);
  message.mutable_begin()->set_bytes_to_come(bytes_to_come);
  return message;
}

v1::GenerateStreamRequest PieceOf(uint64_t index, const std::string& piece) {
  v1::GenerateStreamRequest message;
  message.set_index(index);
  message.set_piece(piece);
  return message;
}

v1::GenerateStreamRequest CancelOf(uint64_t index) {
  v1::GenerateStreamRequest message;
  message.set_index(index);
  message.mutable_cancel();
  return message;
}

// What came for one prompt.
struct PromptAnswer {
  std::string text;
  int num_ends = 0;
  v1::Finish finish;
  v1::PromptError error;

  grpc::StatusCode code() const { return static_cast<grpc::StatusCode>(error.code()); }
};
using Answers = std::map<uint64_t, PromptAnswer>;

void Take(const v1::GenerateStreamResponse& message, Answers& answers) {
  PromptAnswer& answer = answers[message.index()];
  EXPECT_EQ(answer.num_ends, 0) << "a message after the end of " << message.index();
  answer.text += message.response().text();
  if (message.response().has_finish()) answer.finish = message.response().finish();
  if (message.has_error()) answer.error = message.error();
  answer.num_ends += message.response().has_finish() || message.has_error();
}

// Reads until `index` has ended.
void ReadToEndOf(uint64_t index, Stream& stream, Answers& answers) {
  v1::GenerateStreamResponse message;
  while (answers[index].num_ends == 0 && stream.Read(&message)) Take(message, answers);
}

class GenerateStreamTest : public ::testing::Test {
 protected:
  // Sends `requests`, says that there are no more, and reads to the end.
  Answers Run(FakeModelServer& server, const std::vector<v1::GenerateStreamRequest>& requests) {
    auto stream = server.evaserve().GenerateStream(&context_);
    for (const auto& request : requests) stream->Write(request);
    stream->WritesDone();
    return ReadAll(*stream);
  }

  Answers ReadAll(Stream& stream) {
    Answers answers;
    for (v1::GenerateStreamResponse message; stream.Read(&message);) Take(message, answers);
    status_ = stream.Finish();
    return answers;
  }

  static std::string TextOf(FakeModelServer& server, const std::string& prompt) {
    grpc::ClientContext context;
    return evaserve::ReadAll(*server.evaserve().Generate(&context, GreedyRequest(prompt, 10))).text;
  }

  grpc::ClientContext context_;
  grpc::Status status_;
};

TEST_F(GenerateStreamTest, AnswersEveryPromptAsGenerateDoes) {
  FakeModelServer server;

  Answers answers = Run(server, {BeginWith(7, "one"), BeginWith(2, "two"), BeginWith(0, "three")});

  EXPECT_TRUE(status_.ok()) << status_.error_message();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[7].text, TextOf(server, "one"));
  EXPECT_EQ(answers[2].text, TextOf(server, "two"));
  EXPECT_EQ(answers[0].text, TextOf(server, "three"));
  EXPECT_EQ(answers[0].finish.usage().prompt_tokens(), 6u);
}

TEST_F(GenerateStreamTest, APromptInPiecesIsAnsweredAsTheWholeOne) {
  FakeModelServer server;

  Answers answers =
      Run(server, {BeginWith(1, "", kPrompt.size()), PieceOf(1, kPrompt.substr(0, 20)),
                   BeginWith(2, kPrompt.substr(0, 3), kPrompt.size() - 3),
                   PieceOf(1, kPrompt.substr(20)), PieceOf(2, kPrompt.substr(3))});

  EXPECT_EQ(answers[1].text, TextOf(server, kPrompt));
  EXPECT_EQ(answers[2].text, TextOf(server, kPrompt));
  EXPECT_EQ(answers[1].finish.usage().prompt_tokens(), kPrompt.size() + 1);
}

TEST_F(GenerateStreamTest, WhatHasComeIsTakenInBeforeTheRest) {
  FakeModelServer server;
  auto stream = server.evaserve().GenerateStream(&context_);
  const int steps_before = static_cast<int>(server.control().steps().size());

  stream->Write(BeginWith(1, "four", 3));

  server.control().WaitForSteps(steps_before + 1);
  EXPECT_THAT(server.control().steps().back(), Contains(Piece{.length = 0, .num_tokens = 5}));
  stream->Write(PieceOf(1, "abc"));
  stream->WritesDone();
  EXPECT_EQ(ReadAll(*stream)[1].text, TextOf(server, "fourabc"));
}

TEST_F(GenerateStreamTest, OnePromptFailsAndTheOthersGoOn) {
  FakeModelServer server;
  v1::GenerateStreamRequest unknown = BeginWith(1, "one");
  unknown.mutable_begin()->mutable_request()->set_model("nobody");

  Answers answers = Run(server, {unknown, BeginWith(2, "two"), BeginWith(3, "")});

  EXPECT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(answers[1].code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(answers[1].error.message(), HasSubstr("nobody"));
  EXPECT_EQ(answers[2].text, TextOf(server, "two"));
  EXPECT_EQ(answers[3].code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(
      server.WaitForMetric("evaserve_requests_total{code=\"NOT_FOUND\","
                           "method=\"GenerateStream\",model=\"\"}",
                           1));
}

TEST_F(GenerateStreamTest, APromptIsCancelledAndTheOthersGoOn) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(2));
  auto stream = server.evaserve().GenerateStream(&context_);
  stream->Write(BeginWith(1, "one", 0, /*max_new_tokens=*/3000));
  stream->Write(BeginWith(2, "two"));

  stream->Write(CancelOf(1));
  stream->WritesDone();
  Answers answers = ReadAll(*stream);

  EXPECT_EQ(answers[1].code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(answers[2].text, TextOf(server, "two"));
  EXPECT_TRUE(status_.ok());
}

TEST_F(GenerateStreamTest, WhatIsForAPromptThatHasEndedIsIgnored) {
  FakeModelServer server;

  Answers answers = Run(server, {PieceOf(9, "late"), CancelOf(9), BeginWith(1, "one")});

  EXPECT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(answers.size(), 1u);
}

TEST_F(GenerateStreamTest, AnIndexIsFreeAgainAfterTheEnd) {
  FakeModelServer server;
  auto stream = server.evaserve().GenerateStream(&context_);
  stream->Write(BeginWith(1, "one"));
  Answers first, second;
  ReadToEndOf(1, *stream, first);

  stream->Write(BeginWith(1, "two"));
  ReadToEndOf(1, *stream, second);

  EXPECT_EQ(second[1].text, TextOf(server, "two"));
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(GenerateStreamTest, AnIndexThatBeginsTwiceEndsTheCall) {
  FakeModelServer server;
  auto stream = server.evaserve().GenerateStream(&context_);
  stream->Write(BeginWith(5, "", 1));

  stream->Write(BeginWith(5, "two"));
  ReadAll(*stream);

  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status_.error_message(), HasSubstr("index 5 begins again"));
  EXPECT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 0));
}

TEST_F(GenerateStreamTest, AnAbsentActionEndsTheCall) {
  FakeModelServer server;

  Run(server, {v1::GenerateStreamRequest()});

  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status_.error_message(), HasSubstr("action is absent"));
  EXPECT_TRUE(
      server.WaitForMetric("evaserve_requests_total{code=\"INVALID_ARGUMENT\","
                           "method=\"GenerateStream\",model=\"\"}",
                           1));
}

TEST_F(GenerateStreamTest, APromptWhoseEndIsMissingIsRefused) {
  FakeModelServer server;

  Answers answers = Run(server, {BeginWith(1, "one", 10), PieceOf(1, "four"), BeginWith(2, "two")});

  EXPECT_EQ(answers[1].code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answers[1].error.message(), HasSubstr("by bytes_to_come 6 are missing"));
  EXPECT_EQ(answers[2].num_ends, 1);
  EXPECT_EQ(answers[2].code(), grpc::StatusCode::OK);
  EXPECT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 0));
}

TEST_F(GenerateStreamTest, MoreThanBytesToComeIsRefused) {
  FakeModelServer server;

  Answers answers = Run(server, {BeginWith(1, "one", 5), PieceOf(1, "four"), PieceOf(1, "more")});

  EXPECT_EQ(answers[1].code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answers[1].error.message(), HasSubstr("piece has 4 bytes, by bytes_to_come 1 are"));
}

TEST_F(GenerateStreamTest, AChatComesWhole) {
  FakeModelServer server;
  v1::GenerateStreamRequest chat = BeginWith(1, "", 5);
  v1::ChatMessage& message =
      *chat.mutable_begin()->mutable_request()->mutable_chat()->add_messages();
  message.set_role("user");

  Answers answers = Run(server, {chat});

  EXPECT_EQ(answers[1].code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answers[1].error.message(), HasSubstr("bytes_to_come is 5"));
}

TEST_F(GenerateStreamTest, OnePromptTooManyIsRefusedAndReadingGoesOn) {
  FakeModelServer server;
  auto stream = server.evaserve().GenerateStream(&context_);
  const uint64_t most = GenerateStreamReactor::kMaxPrompts;
  for (uint64_t i = 0; i < most; ++i) stream->Write(BeginWith(i, "", 1));

  stream->Write(BeginWith(most, "one"));
  Answers answers;
  ReadToEndOf(most, *stream, answers);

  EXPECT_EQ(answers[most].code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(answers[most].error.retry_seconds(), 0);
  for (uint64_t i = 0; i < most; ++i) stream->Write(PieceOf(i, "x"));
  stream->WritesDone();
  answers = ReadAll(*stream);
  EXPECT_EQ(answers.size(), most);
  for (const auto& [index, answer] : answers) EXPECT_EQ(answer.code(), grpc::StatusCode::OK);
}

TEST_F(GenerateStreamTest, ReportsTokens) {
  FakeModelServer server;
  auto stream = server.evaserve().GenerateStream(&context_);
  v1::GenerateStreamRequest begin = BeginWith(1, "one");
  begin.mutable_begin()->mutable_request()->set_logprobs(true);
  stream->Write(begin);
  stream->WritesDone();

  std::string bytes;
  for (v1::GenerateStreamResponse message; stream->Read(&message);) {
    for (const auto& token : message.response().tokens()) bytes += token.chosen().bytes();
  }

  EXPECT_EQ(bytes, TextOf(server, "one"));
}

TEST_F(GenerateStreamTest, AClientThatGoesFreesEverything) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(2));
  auto stream = server.evaserve().GenerateStream(&context_);
  stream->Write(BeginWith(1, "generating", 0, 3000));
  stream->Write(BeginWith(2, "waiting for a piece", 5));
  ASSERT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 2));

  context_.TryCancel();

  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(
      server.WaitForMetric("evaserve_requests_total{code=\"CANCELLED\","
                           "method=\"GenerateStream\",model=\"fake\"}",
                           2));
  EXPECT_EQ(server.control().live_sequences(), 0);
}

TEST_F(GenerateStreamTest, TheDeadlineOfTheCallEndsAllPrompts) {
  FakeModelServer server;
  context_.set_deadline(std::chrono::system_clock::now() + milliseconds(50));

  auto stream = server.evaserve().GenerateStream(&context_);
  stream->Write(BeginWith(1, "never complete", 5));
  ReadAll(*stream);

  EXPECT_EQ(status_.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(server.WaitForMetric("evaserve_running_sequences{model=\"fake\"}", 0));
}

}  // namespace
}  // namespace evaserve

#include "server/rpc/stream_infer_reactor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "server/rpc/infer_test_util.h"
#include "server/testing/fake_model_server.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelStreamInferResponse;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using InferStream = grpc::ClientReaderWriter<ModelInferRequest, ModelStreamInferResponse>;

ModelInferRequest WithId(ModelInferRequest request, const std::string& id) {
  request.set_id(id);
  return request;
}

bool IsFinal(const ModelStreamInferResponse& message) {
  return message.infer_response().parameters().at("triton_final_response").bool_param();
}

// What came for one request.
struct StreamAnswer {
  std::string text;
  int num_final = 0;
  std::string error;
  ModelStreamInferResponse last;
};

std::map<std::string, StreamAnswer> ReadAnswers(InferStream& stream) {
  std::map<std::string, StreamAnswer> answers;
  for (ModelStreamInferResponse message; stream.Read(&message);) {
    StreamAnswer& answer = answers[message.infer_response().id()];
    EXPECT_EQ(answer.num_final, 0) << "a message after the last one";
    if (message.infer_response().outputs_size() > 0) {
      answer.text += TextsOf(message.infer_response()).front();
    }
    answer.error += message.error_message();
    answer.num_final += IsFinal(message);
    answer.last = message;
  }
  return answers;
}

class StreamInferTest : public ::testing::Test {
 protected:
  // Sends `requests`, says that there are no more, and reads to the end.
  std::map<std::string, StreamAnswer> Run(FakeModelServer& server,
                                          const std::vector<ModelInferRequest>& requests) {
    auto stream = server.open_inference().ModelStreamInfer(&context_);
    for (const ModelInferRequest& request : requests) stream->Write(request);
    stream->WritesDone();
    auto answers = ReadAnswers(*stream);
    status_ = stream->Finish();
    return answers;
  }

  static FakeModelServer::Options Speaking(const std::string& text, size_t prompt_tokens) {
    FakeModelServer::Options options;
    options.model.next_token = Saying(text, prompt_tokens);
    return options;
  }

  grpc::ClientContext context_;
  grpc::Status status_;
};

TEST_F(StreamInferTest, TextComesInPiecesAndTheLastOneIsMarked) {
  FakeModelServer server(Speaking("hello", 3));
  server.control().Hold();
  auto stream = server.open_inference().ModelStreamInfer(&context_);
  stream->Write(InferRequest({"ab"}));

  ModelStreamInferResponse message;
  server.control().AllowSteps(1);
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_THAT(TextsOf(message.infer_response()), ElementsAre("h"));
  EXPECT_FALSE(IsFinal(message));
  server.control().Release();
  stream->WritesDone();
  const StreamAnswer answer = ReadAnswers(*stream)["request-1"];

  EXPECT_EQ(answer.text, "ello");
  EXPECT_EQ(answer.num_final, 1);
  EXPECT_EQ(answer.last.infer_response().model_version(), "1");
  EXPECT_EQ(answer.last.infer_response().parameters().at("finish_reason").string_param(), "eos");
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(StreamInferTest, AnswersManyRequestsOnOneStream) {
  FakeModelServer server;
  std::vector<ModelInferRequest> requests;
  for (int i = 0; i < 200; ++i) {  // more than may be open at a time
    requests.push_back(WithId(InferRequest({"prompt " + std::to_string(i)}), std::to_string(i)));
  }

  const auto answers = Run(server, requests);

  EXPECT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(answers.size(), 200u);
  for (const auto& [id, answer] : answers) {
    EXPECT_EQ(answer.num_final, 1) << id;
    EXPECT_EQ(answer.text.size(), 100u) << id << answer.error;
  }
}

TEST_F(StreamInferTest, AShortAnswerDoesNotWaitForALongOne) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));
  ModelInferRequest endless = WithId(InferRequest({"ab"}), "long");
  (*endless.mutable_parameters())["max_tokens"].set_int64_param(4000);
  auto stream = server.open_inference().ModelStreamInfer(&context_);
  stream->Write(endless);
  stream->Write(WithId(InferRequest({"ab"}, {"embedding"}), "short"));

  ModelStreamInferResponse message;
  while (stream->Read(&message) && message.infer_response().id() != "short") {
    EXPECT_FALSE(IsFinal(message));
  }

  EXPECT_EQ(message.infer_response().outputs(0).name(), "embedding");
  EXPECT_TRUE(IsFinal(message));
}

TEST_F(StreamInferTest, AnEmptyFinalResponseComesOnlyIfAskedFor) {
  FakeModelServer server(Speaking("hello", 3));
  ModelInferRequest request = InferRequest({"ab"});
  (*request.mutable_parameters())["triton_enable_empty_final_response"].set_bool_param(true);

  const StreamAnswer asked = Run(server, {request})["request-1"];

  EXPECT_EQ(asked.text, "hello");
  EXPECT_EQ(asked.num_final, 1);
  EXPECT_EQ(asked.last.infer_response().outputs_size(), 0);
}

TEST_F(StreamInferTest, AFinalResponseHasTextUnlessAskedToBeEmpty) {
  FakeModelServer server(Speaking("hello", 3));

  const StreamAnswer answer = Run(server, {InferRequest({"ab"})})["request-1"];

  EXPECT_EQ(answer.text, "hello");
  EXPECT_EQ(answer.last.infer_response().outputs_size(), 1);
}

TEST_F(StreamInferTest, AnErrorIsAMessageAndTheStreamGoesOn) {
  FakeModelServer server(Speaking("hello", 3));
  ModelInferRequest bad = WithId(InferRequest({"ab"}), "bad");
  bad.mutable_inputs(0)->set_datatype("FP32");
  ModelInferRequest unknown = WithId(InferRequest({"ab"}), "unknown");
  unknown.set_model_name("other");

  auto answers = Run(server, {bad, unknown, WithId(InferRequest({"ab"}), "good")});

  EXPECT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_THAT(answers["bad"].error, HasSubstr("text_input: got datatype FP32, allowed is BYTES"));
  EXPECT_EQ(answers["bad"].num_final, 1);
  EXPECT_THAT(answers["unknown"].error, HasSubstr("there are: fake"));
  EXPECT_EQ(answers["unknown"].last.infer_response().parameters().at("error_code").string_param(),
            "NOT_FOUND");
  EXPECT_EQ(answers["good"].text, "hello");
}

TEST_F(StreamInferTest, AnErrorIsUtf8WhateverItQuotes) {
  FakeModelServer server;
  server.control().FailIf(
      [](std::span<const TokenId>) { return absl::InternalError("no such word: \xFF"); });
  ModelInferRequest bad = WithId(InferRequest({"ab"}), "bad");
  const std::string name = std::string(63, 'a') + "é";
  (*bad.mutable_parameters())[name].set_bool_param(true);

  auto answers = Run(server, {bad, WithId(InferRequest({"ab"}), "failed")});

  EXPECT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_THAT(answers["bad"].error, HasSubstr("got '" + std::string(63, 'a') + "', allowed"));
  EXPECT_EQ(answers["failed"].error, "no such word: \uFFFD");
}

TEST_F(StreamInferTest, AnErrorEndsTheCallIfTheClientAskedForThat) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));
  context_.AddMetadata("triton_grpc_error", "true");
  ModelInferRequest endless = WithId(InferRequest({"ab"}), "long");
  (*endless.mutable_parameters())["max_tokens"].set_int64_param(4000);
  ModelInferRequest bad = WithId(InferRequest({"ab"}), "bad");
  bad.mutable_inputs(0)->set_name("prompt");

  Run(server, {endless, bad});

  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status_.error_message(), HasSubstr("inputs: got 'prompt'"));
  EXPECT_TRUE(server.WaitForMetric("evaserve_requests_in_flight", 0));
  EXPECT_EQ(server.control().live_sequences(), 0);
}

TEST_F(StreamInferTest, RefusesABatchToGenerate) {
  FakeModelServer server;

  auto answers = Run(server, {InferRequest({"ab", "cd"})});

  EXPECT_THAT(answers["request-1"].error, HasSubstr("text_input: got shape [2], allowed is [1]"));
}

TEST_F(StreamInferTest, CancellingFreesAllRequests) {
  FakeModelServer server;
  server.control().SetStepTime(milliseconds(1));
  ModelInferRequest endless = InferRequest({"ab"});
  (*endless.mutable_parameters())["max_tokens"].set_int64_param(4000);
  auto stream = server.open_inference().ModelStreamInfer(&context_);
  for (int i = 0; i < 5; ++i) stream->Write(endless);
  ModelStreamInferResponse message;
  ASSERT_TRUE(stream->Read(&message));

  context_.TryCancel();
  while (stream->Read(&message)) {
  }

  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server.WaitForMetric("evaserve_requests_in_flight", 0));
  EXPECT_TRUE(server.WaitForMetric("evaserve_state_pages_used{model=\"fake\"}", 0));
  EXPECT_LT(server.control().steps().size(), 4000u);
}

TEST_F(StreamInferTest, AStreamWithoutRequestsEndsWell) {
  FakeModelServer server;

  EXPECT_TRUE(Run(server, {}).empty());

  EXPECT_TRUE(status_.ok()) << status_.error_message();
}

}  // namespace
}  // namespace evaserve

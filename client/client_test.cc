#include "client/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/time/clock.h"
#include "client/fake_inference_server.h"

namespace evaserve {
namespace {

// Nothing listens on the discard port.
constexpr char kNobody[] = "127.0.0.1:9";

v1::GenerateRequest Prompt(const std::string& text) {
  v1::GenerateRequest request;
  request.set_prompt(text);
  return request;
}

class ClientTest : public testing::Test {
 protected:
  FakeInferenceServer server_;
  Client client_{server_.target()};
};

TEST_F(ClientTest, StreamsAGenerationUntilItsEnd) {
  GenerateStream stream = client_.Generate(Prompt("abc"));

  std::string text;
  bool finished = false;
  while (auto response = stream.Next()) {
    text += response->text();
    finished = response->has_finish();
  }

  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(text, "abc");
  EXPECT_TRUE(finished);
}

TEST_F(ClientTest, ErrorsCarryTheServersCodeAndMessage) {
  GenerateStream stream = client_.Generate(Prompt(""));

  EXPECT_FALSE(stream.Next().has_value());
  EXPECT_EQ(stream.Finish(), absl::InvalidArgumentError("prompt is empty"));
}

TEST_F(ClientTest, CancelEndsAStreamFromAnotherThread) {
  GenerateStream stream = client_.Generate(Prompt("endless"));
  ASSERT_TRUE(stream.Next().has_value());

  std::thread canceller([&] { stream.Cancel(); });
  while (stream.Next()) {
  }
  canceller.join();

  EXPECT_TRUE(absl::IsCancelled(stream.Finish()));
}

TEST_F(ClientTest, AStreamMayBeDroppedBeforeItsEnd) {
  std::optional<GenerateStream> stream = client_.Generate(Prompt("endless"));
  ASSERT_TRUE(stream->Next().has_value());

  stream.reset();

  EXPECT_TRUE(client_.ListModels().ok());
}

TEST_F(ClientTest, DeadlineEndsAStream) {
  GenerateStream stream =
      client_.Generate(Prompt("endless"), {.deadline = absl::Now() + absl::Milliseconds(50)});

  while (stream.Next()) {
  }

  EXPECT_TRUE(absl::IsDeadlineExceeded(stream.Finish()));
}

TEST_F(ClientTest, CancellationEndsRunningAndLaterCalls) {
  Cancellation cancellation;
  GenerateStream stream = client_.Generate(Prompt("endless"), {.cancellation = &cancellation});
  ASSERT_TRUE(stream.Next().has_value());

  cancellation.Cancel();
  while (stream.Next()) {
  }

  EXPECT_TRUE(absl::IsCancelled(stream.Finish()));
  EXPECT_TRUE(absl::IsCancelled(client_.ListModels({.cancellation = &cancellation}).status()));
}

TEST_F(ClientTest, SendsPromptsInPieces) {
  PromptStream stream = client_.GeneratePrompts();
  v1::GenerateStreamRequest message;
  message.set_index(3);
  *message.mutable_begin()->mutable_request() = Prompt("abc");
  message.mutable_begin()->set_bytes_to_come(3);
  ASSERT_TRUE(stream.Send(message));
  message.set_piece("def");
  ASSERT_TRUE(stream.Send(message));
  stream.EndSending();

  const std::optional<v1::GenerateStreamResponse> response = stream.Next();

  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->index(), 3u);
  EXPECT_EQ(response->response().text(), "abcdef");
  EXPECT_FALSE(stream.Next().has_value());
  EXPECT_TRUE(stream.Finish().ok());
}

TEST_F(ClientTest, APromptStreamMayBeDroppedBeforeItsEnd) {
  { PromptStream stream = client_.GeneratePrompts(); }

  EXPECT_TRUE(client_.ListModels().ok());
}

TEST_F(ClientTest, ListsModels) {
  const auto models = client_.ListModels();

  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 1u);
  EXPECT_EQ(models->front().name(), "fake");
}

TEST_F(ClientTest, ReportsHealth) {
  EXPECT_EQ(client_.IsServing().value(), true);
  server_.SetServing(false);
  EXPECT_EQ(client_.IsServing().value(), false);
  EXPECT_TRUE(absl::IsNotFound(client_.IsServing("unknown").status()));
}

TEST_F(ClientTest, WaitsUntilTheServerServes) {
  server_.SetServing(false);
  absl::Status status = absl::UnknownError("");
  std::thread waiter([&] { status = client_.WaitUntilServing(); });

  server_.SetServing(true);
  waiter.join();

  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ClientTest, WaitingForHealthEndsAtTheDeadline) {
  server_.SetServing(false);

  const absl::Status status =
      client_.WaitUntilServing("", {.deadline = absl::Now() + absl::Milliseconds(50)});

  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST(ClientWithoutServerTest, CallsFailWithUnavailable) {
  Client client(kNobody);

  EXPECT_TRUE(absl::IsUnavailable(client.ListModels().status()));
}

TEST(ClientWithoutServerTest, WaitingForHealthEndsAtTheDeadline) {
  Client client(kNobody);

  const absl::Status status =
      client.WaitUntilServing("", {.deadline = absl::Now() + absl::Milliseconds(50)});

  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST(ConnectTest, ATokenIsNotSentWhereItCouldBeOverheard) {
  ConnectionOptions options = {.token = "some-token"};
  EXPECT_EQ(Client::Connect("server.example:8001", options).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Client::Connect("127.example.com:8001", options).status().code(),
            absl::StatusCode::kInvalidArgument);
  for (const char* here :
       {"localhost:8001", "127.0.0.1:8001", "[::1]:8001", "unix:/run/evaserve"}) {
    EXPECT_TRUE(Client::Connect(here, options).ok()) << here;
  }

  options.token_without_tls = true;
  EXPECT_TRUE(Client::Connect("server.example:8001", options).ok());
  EXPECT_TRUE(Client::Connect("server.example:8001", {.tls = true, .token = "some-token"}).ok());
  EXPECT_TRUE(Client::Connect("server.example:8001", {}).ok());
}

TEST(ConnectTest, ATokenIsVisibleAscii) {
  for (const char* token : {"two words", "line\nfeed", "\xff"}) {
    const absl::Status status = Client::Connect(kNobody, {.token = token}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(status.message()).find(token), std::string::npos);
  }
}

TEST(ConnectTest, ACertificateNeedsItsKey) {
  EXPECT_EQ(Client::Connect(kNobody, {.tls = true, .cert_file = "cert.pem"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Client::Connect(kNobody, {.tls = true, .key_file = "key.pem"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ConnectTest, AMissingFileIsNamed) {
  const absl::Status status =
      Client::Connect(kNobody, {.tls = true, .ca_file = "/nowhere.pem"}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("/nowhere.pem"));
}

}  // namespace
}  // namespace evaserve

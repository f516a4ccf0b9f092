// Connections that the server closes for their age: clients connect again and lose nothing.
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using std::chrono::milliseconds;

std::chrono::system_clock::time_point InAWhile() {
  return std::chrono::system_clock::now() + std::chrono::seconds(10);
}

// What docs/operations.md has for clients. They need it here: a call that starts as the server asks
// to leave can end with "GOAWAY received", which gRPC does not always repeat by itself.
grpc::ChannelArguments RetryingChannelArguments() {
  std::ifstream file(EVASERVE_RETRY_CONFIG);
  EXPECT_TRUE(file.is_open()) << EVASERVE_RETRY_CONFIG;
  grpc::ChannelArguments arguments = MakeChannelArguments();
  arguments.SetServiceConfigJSON(std::string(std::istreambuf_iterator<char>(file), {}));
  return arguments;
}

// A server whose connections live for `age`, and a client that shows the state of its own.
class ConnectionAgeTest : public testing::Test {
 protected:
  void Start(milliseconds age, milliseconds grace) {
    Config config;
    config.max_connection_age = age;
    config.max_connection_age_grace = grace;
    server_ = std::make_unique<TestServer>(config);
    channel_ = grpc::CreateCustomChannel(server_->target(), grpc::InsecureChannelCredentials(),
                                         RetryingChannelArguments());
  }

  // Waits until the connection is open; false if that takes too long.
  bool WaitUntilConnected() const { return channel_->WaitForConnected(InAWhile()); }

  // Waits until the server has told the client to leave a connection that is open.
  bool WaitUntilTold() const {
    return channel_->WaitForStateChange(GRPC_CHANNEL_READY, InAWhile());
  }

  std::unique_ptr<TestServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ConnectionAgeTest, CallersThatNeverStopLoseNothing) {
  Start(milliseconds(150), milliseconds(0));
  std::atomic<bool> is_over = false;
  std::atomic<int> num_calls = 0;
  auto call = [&] {
    Client client(channel_);
    while (!is_over) {
      GenerateStream stream = client.Generate(GreedyRequest("abc", 20));
      while (stream.Next()) {
      }
      const absl::Status status = stream.Finish();
      EXPECT_TRUE(status.ok()) << status;
      ++num_calls;
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) callers.emplace_back(call);

  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(WaitUntilConnected());
    EXPECT_TRUE(WaitUntilTold());
  }
  is_over = true;
  for (std::thread& caller : callers) caller.join();

  EXPECT_GT(num_calls, 20);
}

TEST_F(ConnectionAgeTest, AStreamInFlightGoesOnWhileOthersConnectAgain) {
  Start(milliseconds(100), milliseconds(0));
  Client client(channel_);
  GenerateStream stream = client.Generate(EndlessRequest());
  ASSERT_TRUE(stream.Next().has_value());

  ASSERT_TRUE(WaitUntilTold());

  EXPECT_TRUE(client.ListModels().ok());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(stream.Next().has_value());
}

TEST_F(ConnectionAgeTest, AStreamIsCutAtTheEndOfTheGrace) {
  Start(milliseconds(100), milliseconds(100));
  Client client(channel_);
  GenerateStream stream = client.Generate(EndlessRequest());
  while (stream.Next()) {
  }

  EXPECT_TRUE(absl::IsUnavailable(stream.Finish()));
  EXPECT_TRUE(client.ListModels().ok());
  server_->WaitForMetric("evaserve_running_sequences", 0);
}

}  // namespace
}  // namespace evaserve

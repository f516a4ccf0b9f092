// Clients that leave in the middle of a stream leave nothing behind.
#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>

#include "tests/e2e/raw_grpc_connection.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

constexpr int kNumClients = 2000;
constexpr int kNumWarmUp = 50;
// gRPC's own pool breathes; a thread per client would be a hundred times more.
constexpr int kThreadTolerance = 16;

int NumThreads() {
  const std::filesystem::directory_iterator threads("/proc/self/task");
  return static_cast<int>(std::distance(begin(threads), end(threads)));
}

class VanishingClientTest : public testing::Test {
 protected:
  // Starts a stream over a connection of its own and leaves once its first bytes are there.
  void Vanish(int i) {
    RawGrpcConnection connection(server_.server().grpc_port());
    connection.StartCall("/evaserve.v1.Inference/Generate", EndlessRequest().SerializeAsString());
    ASSERT_TRUE(connection.WaitForData());
    if (i % 2 == 0) connection.Close();
  }

  void Cancel() {
    GenerateStream stream = server_.client().Generate(EndlessRequest());
    ASSERT_TRUE(stream.Next().has_value());
  }

  TestServer& server_ = SharedServer();
};

TEST_F(VanishingClientTest, ClosedConnectionsLeaveNothingBehind) {
  for (int i = 0; i < kNumWarmUp; ++i) Vanish(i);
  const int num_threads = NumThreads();

  for (int i = 0; i < kNumClients && !HasFailure(); ++i) Vanish(i);

  server_.WaitUntilIdle();
  EXPECT_LE(NumThreads(), num_threads + kThreadTolerance);
}

TEST_F(VanishingClientTest, CancelledStreamsLeaveNothingBehind) {
  for (int i = 0; i < kNumWarmUp; ++i) Cancel();
  const int num_threads = NumThreads();

  for (int i = 0; i < kNumClients && !HasFailure(); ++i) Cancel();

  server_.WaitUntilIdle();
  EXPECT_LE(NumThreads(), num_threads + kThreadTolerance);
}

}  // namespace
}  // namespace evaserve

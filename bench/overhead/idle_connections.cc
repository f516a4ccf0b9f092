// Opens many connections, calls each once, and then keeps them without a call, so that somebody
// else can look at the server's memory.
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bench/overhead/end_of_input.h"
#include "inference/open_inference.grpc.pb.h"

namespace evaserve {
namespace {

std::shared_ptr<grpc::Channel> NewConnection(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // channels alike would share one
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

grpc::Status CallServerLive(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  inference::ServerLiveResponse response;
  return inference::GRPCInferenceService::NewStub(channel)->ServerLive(&context, {}, &response);
}

int Main(int argc, char** argv) {
  std::string target;
  int count = 1000;
  int seconds = 60;
  CLI::App app("Keeps idle connections to a server, until its input closes.", "idle_connections");
  app.add_option("target", target, "HOST:PORT")->required();
  app.add_option("--count", count)->capture_default_str();
  app.add_option("--seconds", seconds, "Keeps them no longer than this")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  std::vector<std::shared_ptr<grpc::Channel>> connections;
  while (std::ssize(connections) < count) {
    connections.push_back(NewConnection(target));
    if (grpc::Status status = CallServerLive(connections.back()); !status.ok()) {
      absl::FPrintF(stderr, "connection %d: %s\n", connections.size(), status.error_message());
      return 1;
    }
  }
  absl::PrintF("open %d\n", count);
  fflush(stdout);
  WaitForEndOfInput(absl::Seconds(seconds));
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

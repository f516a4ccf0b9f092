// Has evaserve load a model of its repository and unload it, again and again, until standard input
// ends; prints how often. In C++, as what measures beside it shares the cores with it.
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/overhead/end_of_input.h"
#include "inference/open_inference.grpc.pb.h"

namespace evaserve {
namespace {

using Stub = inference::GRPCInferenceService::Stub;

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
}

grpc::Status LoadAndUnload(Stub& stub, const std::string& model) {
  inference::RepositoryModelLoadRequest load;
  inference::RepositoryModelLoadResponse loaded;
  load.set_model_name(model);
  grpc::ClientContext loading;
  SetDeadline(loading);
  grpc::Status status = stub.RepositoryModelLoad(&loading, load, &loaded);
  if (!status.ok()) return status;

  inference::RepositoryModelUnloadRequest unload;
  inference::RepositoryModelUnloadResponse unloaded;
  unload.set_model_name(model);
  grpc::ClientContext unloading;
  SetDeadline(unloading);
  return stub.RepositoryModelUnload(&unloading, unload, &unloaded);
}

int Main(int argc, char** argv) {
  std::string target;
  std::string model;
  double every_seconds = 0;
  CLI::App app("Loads and unloads a model again and again, until its input closes.", "model_loads");
  app.add_option("target", target, "HOST:PORT")->required();
  app.add_option("model", model)->required();
  app.add_option("--every", every_seconds, "Seconds from load to load; 0: without a pause")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const auto channel = grpc::CreateChannel(target, grpc::InsecureChannelCredentials());
  const auto stub = inference::GRPCInferenceService::NewStub(channel);
  int loads = 0;
  absl::Time next = absl::Now();
  do {
    if (const grpc::Status status = LoadAndUnload(*stub, model); !status.ok()) {
      absl::FPrintF(stderr, "%s: %s\n", target, status.error_message());
      return 1;
    }
    ++loads;
    next += absl::Seconds(every_seconds);
  } while (!WaitForEndOfInput(next - absl::Now()));
  absl::PrintF("%d\n", loads);
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

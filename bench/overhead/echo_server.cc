// The floor of what a server costs: gRPC alone. Answers ModelInfer with OUTPUT0 = the first input,
// without a queue, on 127.0.0.1 at a free port that it prints.
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bench/overhead/end_of_input.h"
#include "inference/open_inference.grpc.pb.h"

namespace evaserve {
namespace {

class EchoService : public inference::GRPCInferenceService::CallbackService {
  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override {
    response->set_live(true);
    return Finish(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    if (request->inputs().empty()) {
      return Finish(context, {grpc::StatusCode::INVALID_ARGUMENT, "no input"});
    }
    response->set_model_name(request->model_name());
    response->set_id(request->id());
    inference::ModelInferResponse::InferOutputTensor& output = *response->add_outputs();
    output.set_name("OUTPUT0");
    output.set_datatype(request->inputs(0).datatype());
    *output.mutable_shape() = request->inputs(0).shape();
    *response->mutable_raw_output_contents() = request->raw_input_contents();
    return Finish(context, grpc::Status::OK);
  }

  static grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context,
                                          const grpc::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(status);
    return reactor;
  }
};

int Main(int argc, char** argv) {
  int seconds = 600;
  CLI::App app("Answers ModelInfer with what it was sent, until its input closes.", "echo_server");
  app.add_option("--seconds", seconds, "It lives no longer than this")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  EchoService service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    absl::FPrintF(stderr, "cannot listen on 127.0.0.1\n");
    return 1;
  }
  absl::PrintF("listening 127.0.0.1:%d\n", port);
  fflush(stdout);
  WaitForEndOfInput(absl::Seconds(seconds));
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

#include "client/fake_inference_server.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <map>

namespace evaserve {
namespace {

void AddWords(const std::string& text, v1::ScoreResponse& response) {
  int word = 0;  // its bytes so far
  for (const char byte : text + " ") {
    if (byte != ' ' && byte != '\n') {
      ++word;
      continue;
    }
    if (word > 0) response.add_logprobs(word / -256.f);
    if (byte == '\n') response.add_logprobs(0.f);
    word = 0;
  }
}

}  // namespace

FakeInferenceServer::FakeInferenceServer() {
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  target_ = "127.0.0.1:" + std::to_string(port);
}

FakeInferenceServer::~FakeInferenceServer() { server_->Shutdown(std::chrono::system_clock::now()); }

void FakeInferenceServer::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
}

grpc::Status FakeInferenceServer::Generate(grpc::ServerContext* context,
                                           const v1::GenerateRequest* request,
                                           grpc::ServerWriter<v1::GenerateResponse>* writer) {
  if (request->prompt().empty()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "prompt is empty");
  }
  v1::GenerateResponse response;
  do {
    for (const char byte : request->prompt()) {
      response.set_text(std::string(1, byte));
      writer->Write(response);
    }
  } while (request->prompt() == "endless" && !context->IsCancelled());
  response.set_text("");
  response.mutable_finish()->set_reason(v1::FINISH_REASON_EOS);
  writer->Write(response);
  return grpc::Status::OK;
}

grpc::Status FakeInferenceServer::GenerateStream(
    grpc::ServerContext* /*context*/,
    grpc::ServerReaderWriter<v1::GenerateStreamResponse, v1::GenerateStreamRequest>* stream) {
  std::map<uint64_t, std::string> prompts;
  for (v1::GenerateStreamRequest message; stream->Read(&message);) {
    prompts[message.index()] += message.begin().request().prompt() + message.piece();
  }
  for (const auto& [index, prompt] : prompts) {
    v1::GenerateStreamResponse response;
    response.set_index(index);
    response.mutable_response()->set_text(prompt);
    stream->Write(response);
  }
  return grpc::Status::OK;
}

grpc::Status FakeInferenceServer::Score(grpc::ServerContext* context,
                                        const v1::ScoreRequest* request,
                                        v1::ScoreResponse* response) {
  ++num_scores_;
  if (has_words_) {
    AddWords(request->text(), *response);
    if (response->logprobs_size() == 0 || response->logprobs_size() >= kMaxSeqLen) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "text has a wrong length");
    }
    return grpc::Status::OK;
  }
  if (request->text().empty() || request->text().size() >= kMaxSeqLen) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "text has a wrong length");
  }
  for (const unsigned char byte : request->text()) response->add_logprobs(byte / -256.f);
  return grpc::Status::OK;
}

grpc::Status FakeInferenceServer::ListModels(grpc::ServerContext* context,
                                             const v1::ListModelsRequest* request,
                                             v1::ListModelsResponse* response) {
  v1::Model& model = *response->add_models();
  model.set_name("fake");
  model.set_state("READY");
  model.set_max_seq_len(kMaxSeqLen);
  model.set_token(has_words_ ? "word" : "byte");
  return grpc::Status::OK;
}

}  // namespace evaserve

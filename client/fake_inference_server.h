#pragma once

#include <grpcpp/server.h>

#include <atomic>
#include <memory>
#include <string>

#include "evaserve/v1/inference.grpc.pb.h"

namespace evaserve {

// A server in the test process that answers without a model, on a port of its own.
//
// Generate echoes the prompt, a byte per message; the prompt "endless" goes on until the client
// leaves. GenerateStream echoes each prompt whole, when all of it has come. Score gives byte b the
// log-probability -b / 256 after whatever comes before it, and takes at most kMaxSeqLen - 1 bytes;
// after SetWords() a word of n bytes is given -n / 256 and a newline 0, and words end with a space
// or newline only. Thread-safe.
class FakeInferenceServer : private v1::Inference::Service {
 public:
  static constexpr int kMaxSeqLen = 9;

  FakeInferenceServer();
  ~FakeInferenceServer() override;

  // HOST:PORT.
  std::string target() const { return target_; }

  // Score requests so far.
  int num_scores() const { return num_scores_; }

  // From now on the tokens of its model are words.
  void SetWords() { has_words_ = true; }

  // What its health service says of the whole server; serving at first.
  void SetServing(bool serving);

 private:
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status GenerateStream(grpc::ServerContext* context,
                              grpc::ServerReaderWriter<v1::GenerateStreamResponse,
                                                       v1::GenerateStreamRequest>* stream) override;
  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override;
  grpc::Status ListModels(grpc::ServerContext* context, const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override;

  std::atomic<int> num_scores_{0};
  std::atomic<bool> has_words_{false};
  std::string target_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace evaserve

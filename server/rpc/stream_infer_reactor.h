#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "inference/open_inference.pb.h"
#include "server/repository/model_repository.h"
#include "server/rpc/authorizer.h"
#include "server/rpc/request_log.h"
#include "server/rpc/write_pacer.h"

namespace evaserve {

// The reactor of one ModelStreamInfer call: many requests on one stream, answered as their results
// come, in turns. A request for one generation is answered in pieces, any other whole. One that
// fails is answered by a message and the stream goes on, unless the client sent the metadata
// triton_grpc_error: true; then the call ends with the error's status.
//
// At most kMaxOpen requests are in flight; further ones are not read until one has ended. A
// generation rests while kMaxPendingBytes of it wait to be written.
//
// Lives until gRPC's OnDone() and until the engine has let go of all requests.
class StreamInferReactor : public grpc::ServerBidiReactor<inference::ModelInferRequest,
                                                          inference::ModelStreamInferResponse>,
                           public std::enable_shared_from_this<StreamInferReactor> {
 public:
  static constexpr size_t kMaxOpen = 64;
  static constexpr size_t kMaxPendingBytes = 64 << 10;

  static StreamInferReactor* Start(grpc::CallbackServerContext& context, ModelRepository& models,
                                   RequestLog& log, const Authorizer& authorizer);

 private:
  class OpenRequest;

  StreamInferReactor(grpc::CallbackServerContext& context, ModelRepository& models, RequestLog& log,
                     const Authorizer& authorizer);

  // From gRPC:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Begins to answer the request in read_.
  void Open();
  // From an open request, on any thread: new text (true unless it should rest), or its end.
  bool OnText(const std::shared_ptr<OpenRequest>& request, std::string_view text);
  void OnEnd(const std::shared_ptr<OpenRequest>& request, absl::Status status,
             inference::ModelInferResponse last);

  // Cancels the open requests; when the engine has let go of them Advance() ends the call with the
  // `status` of the first call.
  void FailCall(const absl::Status& status);

  // Starts what can be started: a read, a write, the end.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnWriteMayStart();
  void ReadMore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts the request's next message into writing_.
  void TakeMessage(const std::shared_ptr<OpenRequest>& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Its answer is under way or nobody wants it: the log hears of it.
  void Close(const std::shared_ptr<OpenRequest>& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void FillLast(const OpenRequest& request, inference::ModelStreamInferResponse& message);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::CallbackServerContext& context_;
  ModelRepository& models_;
  RequestLog& log_;
  const Authorizer& authorizer_;
  const TimePoint deadline_;
  const bool errors_end_call_;
  inference::ModelInferRequest read_;  // gRPC's during a read, OnReadDone()'s after it

  absl::Mutex mutex_;
  std::shared_ptr<StreamInferReactor> self_ ABSL_GUARDED_BY(mutex_);  // until gRPC's OnDone()
  std::set<std::shared_ptr<OpenRequest>> open_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<OpenRequest>> ready_ ABSL_GUARDED_BY(mutex_);  // with a message
  inference::ModelStreamInferResponse writing_ ABSL_GUARDED_BY(mutex_);     // gRPC's during a write
  std::shared_ptr<OpenRequest> being_written_ ABSL_GUARDED_BY(mutex_);
  WritePacer pacer_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> failure_ ABSL_GUARDED_BY(mutex_);
  bool is_reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_input_over_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace evaserve

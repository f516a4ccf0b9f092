#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "evaserve/v1/inference.pb.h"
#include "server/engine/engine.h"
#include "server/rpc/generate_buffer.h"
#include "server/rpc/handle_slot.h"
#include "server/rpc/request_log.h"
#include "server/rpc/write_pacer.h"

namespace evaserve {

// The reactor of one Generate call: between the engine, which delivers tokens on its thread, and
// the stream, which takes one message at a time at the client's pace. What arrives while a message
// is under way, or too soon after one (WritePacer), goes into the next one; when that grows to
// kMaxPendingBytes the sequence rests until half of it is written.
//
// Lives until gRPC's OnDone() and until the engine has let go of it, whichever comes last.
class GenerateReactor : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                        public ResponseSink,
                        public std::enable_shared_from_this<GenerateReactor> {
 public:
  static constexpr size_t kMaxPendingBytes = 64 << 10;

  struct Work {
    std::shared_ptr<Engine> engine;
    Request request;  // without deadline and sink
    bool logprobs = false;
  };

  // Runs `work`, or ends the call with its error.
  static GenerateReactor* Start(grpc::CallbackServerContext& context,
                                std::unique_ptr<RequestScope> scope, absl::StatusOr<Work> work);

  // From the engine:
  bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) override;
  void OnDone(Completion completion) override;

 private:
  GenerateReactor(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope);

  void Submit(Work work);
  void EndWith(absl::Status status);

  // From gRPC:
  void OnWriteDone(bool ok) override;
  void OnCancel() override { handle_.Cancel(); }
  void OnDone() override;

  void OnWriteMayStart();

  // What to ask of gRPC next. Whoever takes an operation starts it, after letting go of the mutex:
  // a write takes a while, and the engine must not wait for it. No other is taken until
  // OnWriteDone().
  enum class Operation { kNone, kWrite, kWriteAndFinish, kFinish };
  Operation TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Start(Operation operation) ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::CallbackServerContext& context_;
  const TimePoint deadline_;
  HandleSlot handle_;
  v1::GenerateResponse writing_;  // whose operation is under way
  grpc::Status final_status_;     // set before is_done_

  absl::Mutex mutex_;
  std::shared_ptr<GenerateReactor> self_ ABSL_GUARDED_BY(mutex_);  // until gRPC's OnDone()
  std::unique_ptr<RequestScope> scope_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Engine> engine_ ABSL_GUARDED_BY(mutex_);
  GenerateBuffer pending_ ABSL_GUARDED_BY(mutex_);
  WritePacer pacer_ ABSL_GUARDED_BY(mutex_);
  bool is_busy_ ABSL_GUARDED_BY(mutex_) = false;         // an operation has been taken
  bool is_resting_ ABSL_GUARDED_BY(mutex_) = false;      // the sequence, until Resume()
  bool is_client_gone_ ABSL_GUARDED_BY(mutex_) = false;  // a write has failed
  bool is_done_ ABSL_GUARDED_BY(mutex_) = false;         // the engine
};

}  // namespace evaserve

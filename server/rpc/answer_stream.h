#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/rpc/call_info.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/handle_slot.h"
#include "server/rpc/request_log.h"
#include "server/rpc/write_pacer.h"

namespace evaserve {

template <typename WireRequest, typename WireResponse>
class AnswerStream;

// What an AnswerStream has of one request. All but `handle` is guarded by the stream's mutex.
template <typename WireResponse>
class StreamAnswer {
 public:
  virtual ~StreamAnswer() = default;

  HandleSlot handle;
  std::unique_ptr<RequestScope> scope;

 protected:
  // Moves what is to be written next into `message`, which is clear; true if more is left.
  virtual bool TakeMessage(WireResponse& message) = 0;

  // About how much waits to be written.
  virtual size_t pending_bytes() const = 0;

  bool has_ended() const { return has_ended_; }

 private:
  template <typename, typename>
  friend class AnswerStream;

  bool has_ended_ = false;
  bool is_ready_ = false;    // it has a message and its place in the row
  bool is_resting_ = false;  // its sequence, until Resume()
};

// The reactor of a call with many requests on one stream, answered as their results come, in turns.
// A generation rests while kMaxPendingBytes of it wait to be written.
//
// Lives until gRPC's OnDone() and until the engine has let go of all requests.
template <typename WireRequest, typename WireResponse>
class AnswerStream : public grpc::ServerBidiReactor<WireRequest, WireResponse>,
                     public std::enable_shared_from_this<AnswerStream<WireRequest, WireResponse>> {
 public:
  using Answer = StreamAnswer<WireResponse>;

  static constexpr size_t kMaxPendingBytes = 64 << 10;

  // Begins to read; the first call.
  void Run() {
    absl::MutexLock lock(&mutex_);
    self_ = this->shared_from_this();
    Advance();
  }

  // For an open answer, from any thread: `add` adds to it, under the mutex, and says whether there
  // is something to write. False if its sequence should rest.
  template <typename Add>
  bool Deliver(const std::shared_ptr<Answer>& answer, Add add) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (failure_) return true;
    if (!add()) return true;
    if (!std::exchange(answer->is_ready_, true)) ready_.push_back(answer);
    Advance();
    answer->is_resting_ = answer->pending_bytes() >= kMaxPendingBytes;
    return !answer->is_resting_;
  }

  // Likewise, how it ended; `add` may change the status that is told.
  template <typename Add>
  void DeliverEnd(const std::shared_ptr<Answer>& answer, absl::Status status, Add add)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    status = TellExpired(std::move(status), deadline_);
    {
      absl::MutexLock lock(&mutex_);
      add(status);
      // Nobody hears of a good end if the call has failed.
      answer->scope->status = failure_ && status.ok() ? *failure_ : status;
      answer->scope->CountEnd();
      answer->has_ended_ = true;
      if (failure_) {
        Close(answer);
      } else if (!std::exchange(answer->is_ready_, true)) {
        ready_.push_back(answer);
      }
    }
    if (errors_end_call_ && !status.ok()) FailCall(status);
    absl::MutexLock lock(&mutex_);
    Advance();
  }

 protected:
  // With `errors_end_call` the first request that fails ends the call with its status.
  AnswerStream(grpc::CallbackServerContext& context, bool errors_end_call)
      : context_(context), deadline_(DeadlineOf(context)), errors_end_call_(errors_end_call) {}

  // Begins to answer `request`, which is gone afterwards, by a call of Open(), or goes on with one
  // that has begun. One call at a time, without the mutex.
  virtual void OnRequest(const WireRequest& request) = 0;
  // There will be no more.
  virtual void OnRequestsEnd() {}
  // Whether another request may be read; a change of this must be due to an end.
  virtual bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // No more of the answer will be written: the last message is about to be, or nobody wants it. Can
  // be called twice.
  virtual void OnLast(const Answer& /*answer*/) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  // From here on the call does not end before `answer` has. False if the call has failed.
  bool Open(std::shared_ptr<Answer> answer) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return OpenLocked(std::move(answer));
  }
  bool OpenLocked(std::shared_ptr<Answer> answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (failure_) return false;
    open_.insert(std::move(answer));
    return true;
  }

  // Cancels the open requests; when the engine has let go of them Advance() ends the call with the
  // `status` of the first call.
  void FailCall(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    std::vector<std::shared_ptr<Answer>> cancelled;
    {
      absl::MutexLock lock(&mutex_);
      if (failure_ || is_ended_) return;
      failure_ = status;
      ready_.clear();
      for (const auto& answer : std::set(open_)) {
        if (answer->has_ended_) {
          Close(answer);
        } else {
          cancelled.push_back(answer);
        }
      }
    }
    for (const auto& answer : cancelled) answer->handle.Cancel();
  }

  bool has_failed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return failure_.has_value(); }
  size_t num_open() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return open_.size(); }
  grpc::CallbackServerContext& context() const { return context_; }
  TimePoint deadline() const { return deadline_; }

  absl::Mutex mutex_;

 private:
  // From gRPC:
  void OnReadDone(bool ok) override {
    if (ok) {
      OnRequest(read_);
    } else {
      OnRequestsEnd();
    }
    absl::MutexLock lock(&mutex_);
    is_reading_ = false;
    is_input_over_ |= !ok;
    Advance();
  }

  void OnWriteDone(bool ok) override {
    std::shared_ptr<Answer> resumed;
    {
      absl::MutexLock lock(&mutex_);
      const std::shared_ptr<Answer> answer = std::exchange(being_written_, nullptr);
      if (answer->has_ended_ && !answer->is_ready_) Close(answer);
      if (answer->is_resting_ && answer->pending_bytes() <= kMaxPendingBytes / 2) {
        answer->is_resting_ = false;
        resumed = answer;
      }
      Advance();
    }
    if (resumed != nullptr) resumed->handle.Resume();
    if (!ok) OnCancel();
  }

  void OnCancel() override {
    FailCall(TellExpired(absl::CancelledError("the client has gone"), deadline_));
    absl::MutexLock lock(&mutex_);
    Advance();
  }

  void OnDone() override {
    std::shared_ptr<AnswerStream> self;  // may be the last, so it goes after the lock
    absl::MutexLock lock(&mutex_);
    self = std::move(self_);
  }

  // Starts what can be started: a read, a write, the end.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (is_ended_) return;
    ReadMore();
    if (being_written_ != nullptr) return;
    if (failure_) {
      if (open_.empty()) End(*failure_);
    } else if (!ready_.empty()) {
      if (MayWrite()) Write();
    } else if (is_input_over_ && open_.empty()) {
      End(absl::OkStatus());
    }
  }

  void ReadMore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (is_reading_ || is_input_over_ || failure_ || !MayRead()) return;
    is_reading_ = true;
    this->StartRead(&read_);
  }

  bool MayWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    // An end is not kept waiting.
    if (ready_.front()->has_ended_) return true;
    return pacer_.TryStart([self = this->shared_from_this()] { self->OnWriteMayStart(); });
  }

  void OnWriteMayStart() {
    absl::MutexLock lock(&mutex_);
    pacer_.OnRetry();
    Advance();
  }

  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    being_written_ = std::move(ready_.front());
    ready_.pop_front();
    writing_.Clear();
    being_written_->is_ready_ = being_written_->TakeMessage(writing_);
    if (being_written_->is_ready_) {
      ready_.push_back(being_written_);
    } else if (being_written_->has_ended_) {
      OnLast(*being_written_);
    }
    this->StartWrite(&writing_);
  }

  // The log hears of it.
  void Close(const std::shared_ptr<Answer>& answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    OnLast(*answer);
    answer->scope.reset();
    open_.erase(answer);
  }

  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    is_ended_ = true;
    AddRetryPushback(status, context_);
    this->Finish(ToGrpcStatus(status));
  }

  grpc::CallbackServerContext& context_;
  const TimePoint deadline_;
  const bool errors_end_call_;
  WireRequest read_;  // gRPC's during a read, OnReadDone()'s after it

  std::shared_ptr<AnswerStream> self_ ABSL_GUARDED_BY(mutex_);  // until gRPC's OnDone()
  std::set<std::shared_ptr<Answer>> open_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Answer>> ready_ ABSL_GUARDED_BY(mutex_);  // with a message
  WireResponse writing_ ABSL_GUARDED_BY(mutex_);                       // gRPC's during a write
  std::shared_ptr<Answer> being_written_ ABSL_GUARDED_BY(mutex_);
  WritePacer pacer_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> failure_ ABSL_GUARDED_BY(mutex_);
  bool is_reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_input_over_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace evaserve

#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request.h"
#include "server/rpc/caller.h"
#include "server/rpc/request_identity.h"

namespace evaserve {

class Metrics;

// Counts the requests that are being answered, and tells the log and the metrics about each when it
// ends. Thread-safe.
class RequestLog {
 public:
  // `metrics` must outlive this.
  explicit RequestLog(Metrics& metrics) : metrics_(metrics) {}

  // Waits until no request is being answered or `deadline` comes; true if none is.
  bool WaitUntilIdle(TimePoint deadline);

  int64_t in_flight() const;

 private:
  friend class RequestScope;

  Metrics& metrics_;
  mutable absl::Mutex mutex_;
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Kinds of methods, by what the log says about them.
enum class MethodKind {
  kInference,  // a line for each
  kQuestion,   // about the server or a model: a line at level debug
};

// One request, from its arrival to its end: lives as long as its answer is under way. Writes the
// request's log line and counts it in the metrics when destroyed.
//
// Not thread-safe, guarded by the call that owns it.
class RequestScope {
 public:
  // `method` is a literal.
  RequestScope(RequestLog& log, Caller caller, const char* method, MethodKind kind);
  ~RequestScope();

  RequestScope(const RequestScope&) = delete;
  RequestScope& operator=(const RequestScope&) = delete;

  // Makes up an id if there is none.
  void SetId(RequestIdentity identity);
  const std::string& id() const { return identity_.id; }
  const Caller& caller() const { return caller_; }

  // Adds what the engine tells about one of the request's sequences: its usage, and the longest of
  // the waits.
  void Add(const Completion& completion);

  std::string model;  // once it is known to be served
  int64_t input_bytes = 0;
  // How it ended.
  absl::Status status = absl::CancelledError("the client has gone");

 private:
  void Report() const;

  RequestLog& log_;
  const Caller caller_;
  const char* const method_;
  const MethodKind kind_;
  const TimePoint start_ = Clock::now();
  RequestIdentity identity_;
  Usage usage_;
  Timings timings_;
};

}  // namespace evaserve

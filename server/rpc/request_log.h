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

class InferenceStatistics;
class Metrics;

// Counts the requests that are being answered, and tells the log, the metrics and the statistics
// about each when it ends. Thread-safe.
class RequestLog {
 public:
  // Both must outlive this.
  RequestLog(Metrics& metrics, InferenceStatistics& statistics)
      : metrics_(metrics), statistics_(statistics) {}

  // Waits until no request is being answered or `deadline` comes; true if none is.
  bool WaitUntilIdle(TimePoint deadline);

  int64_t in_flight() const;

 private:
  friend class RequestScope;

  Metrics& metrics_;
  InferenceStatistics& statistics_;
  mutable absl::Mutex mutex_;
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Kinds of methods, by what the log says about them.
enum class MethodKind {
  kInference,  // a line for each
  kQuestion,   // about the server or a model: a line at level debug
};

// One request, from its arrival to its end: lives as long as its answer is under way. Writes the
// request's log line and counts it in the metrics and statistics when destroyed.
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

  // Adds what the engine tells about one of the request's sequences: its usage and rows, and the
  // longest of the waits.
  void Add(const Completion& completion);

  // Counts it in the statistics as ended with `status`, before its answer goes out: a client that
  // has the answer finds it there. Where nobody says so, when this is destroyed.
  void CountEnd();

  std::string model;    // once it is known to be one of the repository's
  int64_t version = 0;  // that the request is for; 0: none, it does not count in the statistics
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
  int64_t rows_ = 0;
  bool is_counted_ = false;
};

}  // namespace evaserve

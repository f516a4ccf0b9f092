#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/observer.h"

namespace prometheus {
class Counter;
class Histogram;
class Registry;
}  // namespace prometheus

namespace evaserve {

struct MetricInfo {
  const char* name;
  const char* help;
};

// Every metric of ours, one line each; docs/metrics.md has the same with labels and buckets.
namespace metric {
// clang-format off
inline constexpr MetricInfo kBuildInfo{"evaserve_build_info", "Always 1; the label tells the version."};
inline constexpr MetricInfo kModelReady{"evaserve_model_ready", "1 if the model takes requests, else 0."};
inline constexpr MetricInfo kRequests{"evaserve_requests_total", "Requests answered, by model, method and gRPC status code."};
inline constexpr MetricInfo kRequestSeconds{"evaserve_request_duration_seconds", "From a request's arrival to the end of its answer."};
inline constexpr MetricInfo kInFlight{"evaserve_requests_in_flight", "Requests being answered."};
inline constexpr MetricInfo kInputBytes{"evaserve_input_bytes_total", "Bytes of inputs received: texts, tensors, images."};
inline constexpr MetricInfo kOutputBytes{"evaserve_output_bytes_total", "Bytes of text generated."};
inline constexpr MetricInfo kQueueSeconds{"evaserve_queue_wait_seconds", "From a sequence's submission to its first step."};
inline constexpr MetricInfo kFirstByteSeconds{"evaserve_time_to_first_byte_seconds", "From a generation's submission to its first token."};
inline constexpr MetricInfo kNextByteSeconds{"evaserve_time_between_bytes_seconds", "Between two tokens of a generation."};
inline constexpr MetricInfo kStepSeconds{"evaserve_step_duration_seconds", "Duration of a step of the engine."};
inline constexpr MetricInfo kStepTokens{"evaserve_step_tokens", "Tokens in a step, over all its sequences."};
inline constexpr MetricInfo kStepSequences{"evaserve_step_sequences", "Sequences in a step."};
inline constexpr MetricInfo kPrefillTokens{"evaserve_prefill_tokens_total", "Tokens of prompts and texts that steps have taken in."};
inline constexpr MetricInfo kDecodeTokens{"evaserve_decode_tokens_total", "Generated tokens that steps have taken in."};
inline constexpr MetricInfo kRunning{"evaserve_running_sequences", "Sequences that have a state."};
inline constexpr MetricInfo kWaiting{"evaserve_waiting_requests", "Sequences that wait to be admitted."};
inline constexpr MetricInfo kWaitingTokens{"evaserve_waiting_tokens", "Tokens in the prompts of waiting sequences."};
inline constexpr MetricInfo kPagesUsed{"evaserve_state_pages_used", "Pages of the state pool in use."};
inline constexpr MetricInfo kPagesPromised{"evaserve_state_pages_promised", "Pages of the state pool that running sequences may come to need."};
inline constexpr MetricInfo kPagesTotal{"evaserve_state_pages_total", "Pages of the state pool."};
inline constexpr MetricInfo kStateUsed{"evaserve_state_used_bytes", "Memory of the pages in use."};
inline constexpr MetricInfo kStatePool{"evaserve_state_pool_bytes", "Memory of the state pool."};
inline constexpr MetricInfo kStepAge{"evaserve_step_age_seconds", "How long the step that is going on has taken; 0 between steps."};
inline constexpr MetricInfo kCertificateEnd{"evaserve_certificate_not_after_seconds", "When the TLS certificate in use ends, in seconds since 1970."};
// Of the process, under the names that all Prometheus clients use.
inline constexpr MetricInfo kProcessCpu{"process_cpu_seconds_total", "User and system CPU time spent."};
inline constexpr MetricInfo kProcessRss{"process_resident_memory_bytes", "Resident memory."};
inline constexpr MetricInfo kProcessVirtual{"process_virtual_memory_bytes", "Virtual memory."};
inline constexpr MetricInfo kProcessFds{"process_open_fds", "Open file descriptors."};
inline constexpr MetricInfo kProcessMaxFds{"process_max_fds", "Limit of open file descriptors."};
inline constexpr MetricInfo kProcessThreads{"process_threads", "Threads."};
inline constexpr MetricInfo kProcessStart{"process_start_time_seconds", "When the process began, in seconds since 1970."};
// clang-format on
}  // namespace metric

// What is counted of one request when it ends.
struct RequestSample {
  std::string_view model;   // one of the repository's, or empty: names from strangers make no label
  std::string_view method;  // "Generate", "ModelInfer", ...
  std::string_view code;    // "OK", "INVALID_ARGUMENT", ...
  std::chrono::nanoseconds duration{0};
  int64_t input_bytes = 0;
};

// The numbers that /metrics shows. Thread-safe.
class Metrics {
 public:
  explicit Metrics(std::string_view version);
  ~Metrics();

  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // What an engine reports to: about 0.1 us a call. This must outlive it.
  std::unique_ptr<EngineObserver> MakeObserver(const std::string& model);

  void SetModelReady(const std::string& model, bool ready);
  // Looked at now and then.
  void SetStepAge(const std::string& model, std::chrono::milliseconds age);
  // They are shown no more until they are set again.
  void RemoveModelReady(const std::string& model);
  void RemoveStepAge(const std::string& model);
  // `file` is "cert" or "client_ca".
  void SetCertificateEnd(const std::string& file, absl::Time not_after);
  void OnRequestStart();
  void OnRequestEnd(const RequestSample& sample);

  // All metrics in Prometheus' text format.
  std::string Text() const;

 private:
  struct Families;
  class ModelMetrics;

  // The metrics of requests with the same labels.
  struct EndedRequests {
    prometheus::Counter& requests;
    prometheus::Histogram& seconds;
    prometheus::Counter* input_bytes = nullptr;  // once there are some
  };

  EndedRequests& EndedLike(const RequestSample& sample) ABSL_EXCLUSIVE_LOCKS_REQUIRED(ending_);

  absl::Mutex removing_;  // what may be removed is set under it
  std::unique_ptr<prometheus::Registry> registry_;
  std::unique_ptr<Families> families_;
  absl::Mutex ending_;
  std::map<std::string, EndedRequests> ended_ ABSL_GUARDED_BY(ending_);  // by their labels
};

}  // namespace evaserve

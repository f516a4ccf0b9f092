#include "server/rpc/request_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "server/metrics/inference_statistics.h"
#include "server/metrics/metrics.h"

namespace evaserve {
namespace {

// Ids come from strangers; a log line stays readable.
constexpr size_t kMaxLoggedId = 128;

std::string MakeId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return absl::StrFormat("%016x", random());
}

double Milliseconds(std::chrono::nanoseconds duration) {
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(duration);
  return static_cast<double>(whole.count()) / 1000;
}

spdlog::level::level_enum LogLevel(MethodKind kind, const absl::Status& status) {
  const bool our_fault = absl::IsInternal(status) || absl::IsUnknown(status);
  if (our_fault) return spdlog::level::err;
  return kind == MethodKind::kInference ? spdlog::level::info : spdlog::level::debug;
}

}  // namespace

bool RequestLog::WaitUntilIdle(TimePoint deadline) {
  absl::MutexLock lock(&mutex_);
  auto idle = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0; };
  return mutex_.AwaitWithTimeout(absl::Condition(&idle), absl::FromChrono(deadline - Clock::now()));
}

int64_t RequestLog::in_flight() const {
  absl::MutexLock lock(&mutex_);
  return in_flight_;
}

RequestScope::RequestScope(RequestLog& log, Caller caller, const char* method, MethodKind kind)
    : log_(log), caller_(std::move(caller)), method_(method), kind_(kind) {
  log_.metrics_.OnRequestStart();
  absl::MutexLock lock(&log_.mutex_);
  ++log_.in_flight_;
}

RequestScope::~RequestScope() {
  CountEnd();
  Report();
  absl::MutexLock lock(&log_.mutex_);
  --log_.in_flight_;
}

void RequestScope::SetId(RequestIdentity identity) {
  identity_ = std::move(identity);
  if (identity_.id.empty()) identity_.id = MakeId();
}

void RequestScope::Add(const Completion& completion) {
  usage_.prompt_tokens += completion.usage.prompt_tokens;
  usage_.new_tokens += completion.usage.new_tokens;
  usage_.new_bytes += completion.usage.new_bytes;
  timings_.queue = std::max(timings_.queue, completion.timings.queue);
  timings_.first_token = std::max(timings_.first_token, completion.timings.first_token);
  timings_.total = std::max(timings_.total, completion.timings.total);
  rows_ += completion.rows;
}

void RequestScope::CountEnd() {
  if (version == 0 || std::exchange(is_counted_, true)) return;
  using std::chrono::duration_cast, std::chrono::microseconds;
  log_.statistics_.Add(model, version,
                       {.ok = status.ok(),
                        .duration = duration_cast<microseconds>(Clock::now() - start_),
                        .queue = timings_.queue,
                        .engine = timings_.total,
                        .rows = rows_});
}

void RequestScope::Report() const {
  const auto duration = Clock::now() - start_;
  const std::string code = absl::StatusCodeToString(status.code());
  log_.metrics_.OnRequestEnd({.model = model,
                              .method = method_,
                              .code = code,
                              .duration = duration,
                              .input_bytes = input_bytes});

  const spdlog::level::level_enum level = LogLevel(kind_, status);
  if (!spdlog::should_log(level)) return;
  nlohmann::ordered_json fields{{"id", id().substr(0, kMaxLoggedId)},
                                {"client", caller_.name().substr(0, kMaxLoggedId)},
                                {"model", model},
                                {"method", method_},
                                {"code", code},
                                {"input_bytes", input_bytes},
                                {"prompt_tokens", usage_.prompt_tokens},
                                {"new_tokens", usage_.new_tokens},
                                {"new_bytes", usage_.new_bytes},
                                {"queue_ms", Milliseconds(timings_.queue)},
                                {"first_token_ms", Milliseconds(timings_.first_token)},
                                {"total_ms", Milliseconds(duration)}};
  if (!identity_.trace.trace_id.empty()) {
    fields["trace_id"] = identity_.trace.trace_id;
    fields["span_id"] = identity_.trace.span_id;
  }
  if (!status.ok()) fields["error"] = std::string(status.message().substr(0, 500));
  LogEvent(level, "request", fields);
}

}  // namespace evaserve

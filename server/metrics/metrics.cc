#include "server/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>

#include "server/metrics/process_metrics.h"

namespace evaserve {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

const Buckets kRequestBuckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                              1,     2.5,    5,     10,   25,    50,   100, 250,  500};
const Buckets kWaitBuckets{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                           0.1,    0.25,    0.5,    1,     2.5,    5,     10,   25,    50};
const Buckets kGapBuckets{0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005,
                          0.01,   0.02,   0.05,   0.1,    0.2,   0.5,   1};
const Buckets kTokenBuckets{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kSequenceBuckets{1, 2, 4, 8, 16, 32, 64, 128, 256, 512};

template <typename Metric>
Family<Metric>& MakeFamily(prometheus::Registry& registry, const MetricInfo& info) {
  if constexpr (std::is_same_v<Metric, Counter>) {
    return prometheus::BuildCounter().Name(info.name).Help(info.help).Register(registry);
  } else if constexpr (std::is_same_v<Metric, Gauge>) {
    return prometheus::BuildGauge().Name(info.name).Help(info.help).Register(registry);
  } else {
    return prometheus::BuildHistogram().Name(info.name).Help(info.help).Register(registry);
  }
}

double Seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

struct Metrics::Families {
  explicit Families(prometheus::Registry& r)
      : build_info(MakeFamily<Gauge>(r, metric::kBuildInfo)),
        model_ready(MakeFamily<Gauge>(r, metric::kModelReady)),
        requests(MakeFamily<Counter>(r, metric::kRequests)),
        request_seconds(MakeFamily<Histogram>(r, metric::kRequestSeconds)),
        in_flight(MakeFamily<Gauge>(r, metric::kInFlight).Add({})),
        input_bytes(MakeFamily<Counter>(r, metric::kInputBytes)),
        output_bytes(MakeFamily<Counter>(r, metric::kOutputBytes)),
        queue_seconds(MakeFamily<Histogram>(r, metric::kQueueSeconds)),
        first_byte_seconds(MakeFamily<Histogram>(r, metric::kFirstByteSeconds)),
        next_byte_seconds(MakeFamily<Histogram>(r, metric::kNextByteSeconds)),
        step_seconds(MakeFamily<Histogram>(r, metric::kStepSeconds)),
        step_tokens(MakeFamily<Histogram>(r, metric::kStepTokens)),
        step_sequences(MakeFamily<Histogram>(r, metric::kStepSequences)),
        prefill_tokens(MakeFamily<Counter>(r, metric::kPrefillTokens)),
        decode_tokens(MakeFamily<Counter>(r, metric::kDecodeTokens)),
        running(MakeFamily<Gauge>(r, metric::kRunning)),
        waiting(MakeFamily<Gauge>(r, metric::kWaiting)),
        waiting_tokens(MakeFamily<Gauge>(r, metric::kWaitingTokens)),
        pages_used(MakeFamily<Gauge>(r, metric::kPagesUsed)),
        pages_promised(MakeFamily<Gauge>(r, metric::kPagesPromised)),
        pages_total(MakeFamily<Gauge>(r, metric::kPagesTotal)),
        state_used(MakeFamily<Gauge>(r, metric::kStateUsed)),
        state_pool(MakeFamily<Gauge>(r, metric::kStatePool)),
        step_age(MakeFamily<Gauge>(r, metric::kStepAge)),
        certificate_end(MakeFamily<Gauge>(r, metric::kCertificateEnd)) {}

  Family<Gauge>& build_info;
  Family<Gauge>& model_ready;
  Family<Counter>& requests;
  Family<Histogram>& request_seconds;
  Gauge& in_flight;
  Family<Counter>& input_bytes;
  Family<Counter>& output_bytes;
  Family<Histogram>& queue_seconds;
  Family<Histogram>& first_byte_seconds;
  Family<Histogram>& next_byte_seconds;
  Family<Histogram>& step_seconds;
  Family<Histogram>& step_tokens;
  Family<Histogram>& step_sequences;
  Family<Counter>& prefill_tokens;
  Family<Counter>& decode_tokens;
  Family<Gauge>& running;
  Family<Gauge>& waiting;
  Family<Gauge>& waiting_tokens;
  Family<Gauge>& pages_used;
  Family<Gauge>& pages_promised;
  Family<Gauge>& pages_total;
  Family<Gauge>& state_used;
  Family<Gauge>& state_pool;
  Family<Gauge>& step_age;
  Family<Gauge>& certificate_end;
};

// Lengths of prompts, in tokens, by which waits for the first byte are told apart, and the label's
// values.
constexpr int64_t kPromptLimits[] = {1024, 8192, 65536};
constexpr const char* kPromptNames[] = {"<1K", "<8K", "<64K", ">=64K"};

std::vector<Histogram*> ByPrompt(Family<Histogram>& family, prometheus::Labels labels) {
  std::vector<Histogram*> histograms;
  for (const char* name : kPromptNames) {
    labels["prompt_tokens"] = name;
    histograms.push_back(&family.Add(labels, kWaitBuckets));
  }
  return histograms;
}

// Looks every labelled metric up once, since the engine reports each token.
class Metrics::ModelMetrics : public EngineObserver {
 public:
  ModelMetrics(Families& f, const std::string& model)
      : labels_{{"model", model}},
        queue_seconds_(f.queue_seconds.Add(labels_, kWaitBuckets)),
        first_byte_seconds_(ByPrompt(f.first_byte_seconds, labels_)),
        next_byte_seconds_(f.next_byte_seconds.Add(labels_, kGapBuckets)),
        step_seconds_(f.step_seconds.Add(labels_, kGapBuckets)),
        step_tokens_(f.step_tokens.Add(labels_, kTokenBuckets)),
        step_sequences_(f.step_sequences.Add(labels_, kSequenceBuckets)),
        prefill_tokens_(f.prefill_tokens.Add(labels_)),
        decode_tokens_(f.decode_tokens.Add(labels_)),
        output_bytes_(f.output_bytes.Add(labels_)),
        running_(f.running.Add(labels_)),
        waiting_(f.waiting.Add(labels_)),
        waiting_tokens_(f.waiting_tokens.Add(labels_)),
        pages_used_(f.pages_used.Add(labels_)),
        pages_promised_(f.pages_promised.Add(labels_)),
        pages_total_(f.pages_total.Add(labels_)),
        state_used_(f.state_used.Add(labels_)),
        state_pool_(f.state_pool.Add(labels_)) {}

  ~ModelMetrics() override { ShowState({}); }

  void OnStep(const StepStats& stats) override {
    step_seconds_.Observe(Seconds(stats.duration));
    step_tokens_.Observe(stats.prefill_tokens + stats.decode_tokens);
    step_sequences_.Observe(stats.num_sequences);
    prefill_tokens_.Increment(stats.prefill_tokens);
    decode_tokens_.Increment(stats.decode_tokens);
  }

  void OnState(const EngineState& state) override { ShowState(state); }

  void OnFirstStep(std::chrono::microseconds queue_time) override {
    queue_seconds_.Observe(Seconds(queue_time));
  }

  void OnFirstToken(std::chrono::microseconds since_submit, int64_t prompt_tokens) override {
    const auto bucket =
        std::upper_bound(std::begin(kPromptLimits), std::end(kPromptLimits), prompt_tokens) -
        std::begin(kPromptLimits);
    first_byte_seconds_[bucket]->Observe(Seconds(since_submit));
  }

  void OnNextToken(std::chrono::microseconds since_last_token) override {
    next_byte_seconds_.Observe(Seconds(since_last_token));
  }

  void OnDone(Task task, const Completion& completion) override {
    output_bytes_.Increment(static_cast<double>(completion.usage.new_bytes));
  }

 private:
  // A model may have several engines, of other versions or on their way out: the gauges are sums.
  void ShowState(const EngineState& state) {
    const auto move = [](Gauge& gauge, int64_t from, int64_t to) {
      gauge.Increment(static_cast<double>(to - from));
    };
    move(running_, shown_.running, state.running);
    move(waiting_, shown_.waiting, state.waiting);
    move(waiting_tokens_, shown_.waiting_tokens, state.waiting_tokens);
    move(pages_used_, shown_.pages_used, state.pages_used);
    move(pages_promised_, shown_.pages_promised, state.pages_promised);
    move(pages_total_, shown_.pages_total, state.pages_total);
    // Versions have pages of different sizes.
    move(state_used_, shown_.pages_used * shown_.page_bytes, state.pages_used * state.page_bytes);
    move(state_pool_, shown_.pages_total * shown_.page_bytes, state.pages_total * state.page_bytes);
    shown_ = state;
  }

  const prometheus::Labels labels_;
  EngineState shown_;
  Histogram& queue_seconds_;
  std::vector<Histogram*> first_byte_seconds_;  // by the prompt's length
  Histogram& next_byte_seconds_;
  Histogram& step_seconds_;
  Histogram& step_tokens_;
  Histogram& step_sequences_;
  Counter& prefill_tokens_;
  Counter& decode_tokens_;
  Counter& output_bytes_;
  Gauge& running_;
  Gauge& waiting_;
  Gauge& waiting_tokens_;
  Gauge& pages_used_;
  Gauge& pages_promised_;
  Gauge& pages_total_;
  Gauge& state_used_;
  Gauge& state_pool_;
};

Metrics::Metrics(std::string_view version)
    : registry_(std::make_unique<prometheus::Registry>()),
      families_(std::make_unique<Families>(*registry_)) {
  families_->build_info.Add({{"version", std::string(version)}}).Set(1);
}

Metrics::~Metrics() = default;

std::unique_ptr<EngineObserver> Metrics::MakeObserver(const std::string& model) {
  return std::make_unique<ModelMetrics>(*families_, model);
}

void Metrics::SetModelReady(const std::string& model, bool ready) {
  absl::MutexLock lock(&removing_);
  families_->model_ready.Add({{"model", model}}).Set(ready ? 1 : 0);
}

void Metrics::RemoveModelReady(const std::string& model) {
  absl::MutexLock lock(&removing_);
  families_->model_ready.Remove(&families_->model_ready.Add({{"model", model}}));
}

void Metrics::SetStepAge(const std::string& model, std::chrono::milliseconds age) {
  absl::MutexLock lock(&removing_);
  families_->step_age.Add({{"model", model}}).Set(Seconds(age));
}

void Metrics::RemoveStepAge(const std::string& model) {
  absl::MutexLock lock(&removing_);
  families_->step_age.Remove(&families_->step_age.Add({{"model", model}}));
}

void Metrics::SetCertificateEnd(const std::string& file, absl::Time not_after) {
  families_->certificate_end.Add({{"file", file}})
      .Set(absl::ToDoubleSeconds(not_after - absl::UnixEpoch()));
}

void Metrics::OnRequestStart() { families_->in_flight.Increment(); }

void Metrics::OnRequestEnd(const RequestSample& sample) {
  families_->in_flight.Decrement();
  absl::MutexLock lock(&ending_);
  EndedRequests& ended = EndedLike(sample);
  ended.requests.Increment();
  ended.seconds.Observe(Seconds(sample.duration));
  if (sample.input_bytes == 0) return;
  if (ended.input_bytes == nullptr) {
    ended.input_bytes = &families_->input_bytes.Add({{"model", std::string(sample.model)}});
  }
  ended.input_bytes->Increment(static_cast<double>(sample.input_bytes));
}

// Looked up once: the library takes a microsecond to put labels together.
Metrics::EndedRequests& Metrics::EndedLike(const RequestSample& sample) {
  std::string labels(sample.model);
  labels.append("\n").append(sample.method).append("\n").append(sample.code);
  const auto known = ended_.find(labels);
  if (known != ended_.end()) return known->second;
  const std::string model(sample.model);
  const std::string method(sample.method);
  const std::string code(sample.code);
  const EndedRequests added{
      .requests = families_->requests.Add({{"model", model}, {"method", method}, {"code", code}}),
      .seconds =
          families_->request_seconds.Add({{"model", model}, {"method", method}}, kRequestBuckets)};
  return ended_.try_emplace(labels, added).first->second;
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (prometheus::MetricFamily& family : CollectProcessMetrics()) {
    families.push_back(std::move(family));
  }
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

}  // namespace evaserve

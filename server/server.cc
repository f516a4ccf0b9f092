#include "server/server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "server/control_options.h"
#include "server/heap.h"
#include "server/log.h"
#include "server/metrics/inference_statistics.h"
#include "server/metrics/metrics.h"
#include "server/metrics/metrics_server.h"
#include "server/metrics/process_metrics.h"
#include "server/model_log.h"
#include "server/poller.h"
#include "server/repository/model_repository.h"
#include "server/repository/repository_control.h"
#include "server/rpc/authorizer.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/request_log.h"
#include "server/rpc/serving_state.h"
#include "server/rpc/tls_certificates.h"
#include "server/step_watch.h"

namespace evaserve {
namespace {

// The address that was bound; "off" for none.
std::string WithPort(const std::string& address, int port) {
  if (address.empty()) return "off";
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

// Whether a model is to be there: one of which all was unloaded is not.
bool IsWanted(const ModelRepository& models, const std::string& name) {
  const std::vector<ModelStatus> all = models.List();
  return std::any_of(all.begin(), all.end(), [&name](const ModelStatus& status) {
    return status.name == name && !IsUnloaded(status);
  });
}

}  // namespace

// In the order of their dependence: each part uses only those above it.
struct Server::Parts {
  Parts(const Config& config, ModelLoader load_model, std::function<void()> on_failure)
      : config(config),
        on_failure(std::move(on_failure)),
        models(MakeOptions(std::move(load_model))),
        control(MakeControlOptions(), models),
        step_watch({.limit = config.step_timeout,
                    .on_change = [this](const std::string& model,
                                        bool is_stuck) { OnStuck(model, is_stuck); }},
                   models, metrics) {}
  // What is being loaded still tells of its end.
  ~Parts() {
    state.SetDraining();
    control.Stop(TimePoint::max());
    // gRPC goes before the engines, so nobody is to hear of a device that is lost from now on. Of
    // one that is just being told, gRPC waits for the call that the step was for.
    has_failed = true;
  }

  ModelRepository::Options MakeOptions(ModelLoader load_model) {
    ModelRepository::Options options;
    options.load_model = std::move(load_model);
    options.make_observer = [this](const std::string& model, int64_t version) {
      return statistics.MakeObserver(model, version, metrics.MakeObserver(model));
    };
    options.on_change = [this](const ModelStatus& status) { OnModelChange(status); };
    options.on_lost = [this](const std::string& model, const absl::Status& status) {
      Fail(model, status);
    };
    return options;
  }

  RepositoryControl::Options MakeControlOptions() {
    RepositoryControl::Options options = ControlOptions(config);
    options.on_ignored = LogIgnored;
    if (!config.strict_readiness) return options;
    options.on_missing = [this](const std::set<std::string>& missing) { OnMissing(missing); };
    return options;
  }

  void Fail(const std::string& model, const absl::Status& status);
  void OnMissing(const std::set<std::string>& models);
  void LogReadiness();
  void OnLoaded(const absl::Status& status);
  void OnModelChange(const ModelStatus& status);
  void OnStuck(const std::string& model, bool is_stuck);
  // How a model is, and the whole server, to all who ask.
  void Show(const std::string& model);
  void ShowAll();
  absl::Status ReadCredentials();
  void ReloadCredentials();
  void ShowCertificates();
  absl::Status Listen();
  void TellWhatDoesNotEnd() const;

  const TimePoint start = Clock::now();
  const Config config;
  const std::function<void()> on_failure;
  std::atomic<bool> has_failed{false};
  Metrics metrics{EVASERVE_VERSION};
  InferenceStatistics statistics;
  ServingState state;
  RequestLog log{metrics, statistics};
  std::unique_ptr<TlsCertificates> tls;  // null: connections are not encrypted
  std::unique_ptr<Authorizer> authorizer = std::make_unique<Authorizer>();
  ModelRepository models;
  absl::Mutex showing;        // what is shown last is how it is
  absl::Notification loaded;  // all models of the start, or not
  absl::Status load_status;   // of them, from then on
  bool is_loading = false;    // after the server's end
  RepositoryControl control;
  StepWatch step_watch;
  std::unique_ptr<GrpcServer> grpc;
  std::unique_ptr<MetricsServer> http;
  std::unique_ptr<Poller> watching;
  std::unique_ptr<Poller> reloading;
  HeapTrimmer heap;
  std::unique_ptr<Poller> trimming;
};

void Server::Parts::Fail(const std::string& model, const absl::Status& status) {
  if (has_failed.exchange(true)) return;
  LogEvent(spdlog::level::critical, "model lost",
           {{"model", model}, {"reason", std::string(status.message())}});
  state.SetDraining();
  grpc->SetNotServingForGood();
  on_failure();
}

absl::Status Server::Parts::ReadCredentials() {
  if (!config.tls.cert.empty()) {
    auto loaded = TlsCertificates::Load(config.tls);
    if (!loaded.ok()) return loaded.status();
    tls = *std::move(loaded);
    ShowCertificates();
  }
  if (!config.auth_tokens.empty()) {
    auto loaded = Authorizer::Load(config.auth_tokens);
    if (!loaded.ok()) return loaded.status();
    authorizer = *std::move(loaded);
  }
  if (tls != nullptr || authorizer->asks_for_tokens()) {
    reloading = std::make_unique<Poller>("eva-credentials", config.credentials_reload,
                                         [this] { ReloadCredentials(); });
  }
  return absl::OkStatus();
}

void Server::Parts::ReloadCredentials() {
  if (tls != nullptr) {
    tls->Reload();
    ShowCertificates();
  }
  authorizer->Reload();
}

void Server::Parts::ShowCertificates() {
  const auto material = tls->current();
  metrics.SetCertificateEnd("cert", material->not_after);
  if (tls->clients_need_certificates()) {
    metrics.SetCertificateEnd("client_ca", material->client_ca_not_after);
  }
}

absl::Status Server::Parts::Listen() {
  auto listening =
      GrpcServer::Start({.address = config.address,
                         .server_version = EVASERVE_VERSION,
                         .tls = tls.get(),
                         .authorizer = authorizer.get(),
                         .max_message_bytes = config.max_message_mb << 20,
                         .receive_memory_bytes = int64_t{config.receive_memory_mb} << 20,
                         .max_connection_age = config.max_connection_age,
                         .max_connection_age_grace = config.max_connection_age_grace},
                        {models, control, statistics, state, log});
  if (!listening.ok()) return listening.status();
  grpc = *std::move(listening);
  if (config.metrics_address.empty()) return absl::OkStatus();

  auto serving = MetricsServer::Start(
      config.metrics_address,
      {.metrics = [this] { return metrics.Text(); },
       .healthy = [this] { return state.is_stuck() ? state.Check() : absl::OkStatus(); },
       .ready = [this] { return state.CheckReady(); }});
  if (!serving.ok()) {
    return {serving.status().code(),
            absl::StrCat("--metrics-address: ", serving.status().message())};
  }
  http = *std::move(serving);
  return absl::OkStatus();
}

void Server::Parts::OnStuck(const std::string& model, bool is_stuck) {
  LogEvent(is_stuck ? spdlog::level::critical : spdlog::level::warn,
           is_stuck ? "a step does not end" : "the step has ended", {{"model", model}});
  Show(model);
  ShowAll();
}

void Server::Parts::TellWhatDoesNotEnd() const {
  for (const ReadyModel& model : models.Engines()) {
    const std::optional<std::chrono::milliseconds> age = model.any()->step_age();
    if (!age) continue;
    LogEvent(spdlog::level::critical, "the server ends without waiting for a step",
             {{"model", model.name}, {"version", model.version}, {"step_ms", age->count()}});
  }
  LogEvent(spdlog::level::critical, "requests do not end", {{"in_flight", log.in_flight()}});
}

void Server::Parts::OnModelChange(const ModelStatus& status) {
  LogModel(status, models.Find(status.name, status.version));
  Show(status.name);
}

void Server::Parts::Show(const std::string& model) {
  absl::MutexLock lock(&showing);
  const bool is_served = models.Find(model).ok();  // in some version
  if (IsWanted(models, model)) {
    metrics.SetModelReady(model, is_served);
  } else {
    metrics.RemoveModelReady(model);
  }
  grpc->SetModelServing(model, is_served && !step_watch.sees_stuck(model));
}

void Server::Parts::ShowAll() {
  absl::MutexLock lock(&showing);
  state.SetStuck(step_watch.sees_stuck());
  grpc->SetServing(state.CheckReady().ok());
}

void Server::Parts::OnMissing(const std::set<std::string>& models) {
  state.SetMissing(absl::StrJoin(models, ", "));
  if (!loaded.HasBeenNotified() || state.is_draining()) return;  // else OnLoaded() tells
  ShowAll();
  LogReadiness();
}

void Server::Parts::LogReadiness() {
  const auto load_time =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  nlohmann::ordered_json fields{
      {"grpc", WithPort(config.address, grpc->port())},
      {"metrics", WithPort(config.metrics_address, http == nullptr ? 0 : http->port())},
      {"models", models.Ready().size()},
      {"start_ms", load_time.count()},
      {"resident_mb", ResidentBytes() >> 20}};
  const absl::Status ready = state.CheckReady();
  if (!ready.ok()) fields["reason"] = std::string(ready.message());
  LogEvent(ready.ok() ? spdlog::level::info : spdlog::level::err,
           ready.ok() ? "ready" : "not ready", fields);
}

void Server::Parts::OnLoaded(const absl::Status& status) {
  load_status = status;
  if (status.ok() && state.SetServing()) {
    ShowAll();
    LogReadiness();
  }
  loaded.Notify();
  if (!status.ok() && !state.is_draining()) on_failure();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Listen(const Config& config, ModelLoader load_model,
                                                       std::function<void()> on_failure) {
  auto parts = std::make_unique<Parts>(config, std::move(load_model), std::move(on_failure));
  if (absl::Status status = parts->ReadCredentials(); !status.ok()) return status;
  if (absl::Status status = parts->Listen(); !status.ok()) return status;
  parts->trimming = std::make_unique<Poller>("eva-heap", std::chrono::milliseconds(5000),
                                             [parts = parts.get()] { parts->heap.Trim(); });
  parts->watching = std::make_unique<Poller>("eva-watch", std::chrono::milliseconds(1000),
                                             [watch = &parts->step_watch] { watch->Look(); });
  parts->control.Start(
      [parts = parts.get()](const absl::Status& status) { parts->OnLoaded(status); });
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config, ModelLoader load_model,
                                                      std::function<void()> on_failure) {
  auto server = Listen(config, std::move(load_model), std::move(on_failure));
  if (!server.ok()) return server.status();
  if (absl::Status status = (*server)->WaitUntilLoaded(); !status.ok()) return status;
  return server;
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

// GrpcServer's destructor cancels the calls, which frees their sequences; the engines go after it.
Server::~Server() = default;

int Server::grpc_port() const { return parts_->grpc->port(); }

int Server::metrics_port() const { return parts_->http == nullptr ? 0 : parts_->http->port(); }

bool Server::has_failed() const { return parts_->has_failed; }

absl::Status Server::WaitUntilLoaded() {
  parts_->loaded.WaitForNotification();
  return parts_->load_status;
}

absl::Status Server::load_status() const {
  return parts_->loaded.HasBeenNotified() ? parts_->load_status : absl::OkStatus();
}

bool Server::is_loading() const { return parts_->is_loading; }

bool Server::Shutdown(std::chrono::milliseconds patience) {
  // Nobody sends requests here before it was ready.
  const bool needs_pause = parts_->loaded.HasBeenNotified() && !has_failed();
  const auto pause = needs_pause ? parts_->config.drain_pause : std::chrono::milliseconds(0);
  const TimePoint deadline = Clock::now() + pause + parts_->config.drain_timeout;
  LogEvent(spdlog::level::info, "draining", {{"in_flight", parts_->log.in_flight()}});
  parts_->watching.reset();
  parts_->state.SetDraining();
  parts_->control.BeginStop();
  parts_->grpc->SetNotServingForGood();
  // Those who send requests here hear of it a little later; what comes until then is served.
  std::this_thread::sleep_for(pause);
  parts_->models.DrainAll();  // streams that are open can still bring requests
  parts_->grpc->BeginShutdown();
  parts_->models.WaitUntilIdle(deadline);
  // Short loads come to their end; who asked for a longer one hears that it is broken off.
  constexpr std::chrono::milliseconds kFarewell{500};
  parts_->is_loading = !parts_->control.Stop(Clock::now() + kFarewell);
  parts_->log.WaitUntilIdle(deadline);  // the last bytes are on their way
  const int64_t in_flight = parts_->log.in_flight();
  LogEvent(spdlog::level::info, "stopping", {{"in_flight", in_flight}});
  const TimePoint now = Clock::now();
  const TimePoint limit = now + patience;
  // Connections without a call close by themselves.
  const bool has_ended = parts_->grpc->Shutdown(in_flight == 0 ? now + kFarewell : now, limit) &&
                         parts_->models.WaitUntilIdle(limit);
  if (!has_ended) parts_->TellWhatDoesNotEnd();
  return has_ended;
}

}  // namespace evaserve

#include "server/server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/log.h"
#include "server/metrics/metrics.h"
#include "server/metrics/metrics_server.h"
#include "server/metrics/process_metrics.h"
#include "server/repository/model_repository.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/request_log.h"
#include "server/rpc/serving_state.h"

namespace evaserve {
namespace {

ModelRepository::Options RepositoryOptions(const Config& config) {
  ModelRepository::Options options;
  options.engine.max_batch_tokens = config.max_batch_tokens;
  options.engine.max_running = config.max_running;
  options.engine.max_waiting = config.max_waiting;
  options.load.device = config.device;
  options.load.dtype = config.dtype;
  options.load.state_bytes = config.state_memory_mb << 20;
  const int num_cores = static_cast<int>(std::thread::hardware_concurrency());
  options.num_threads = config.threads > 0 ? config.threads : std::max(num_cores, 1);
  return options;
}

GrpcServerOptions RpcOptions(const Config& config) {
  return {.address = config.address,
          .server_version = EVASERVE_VERSION,
          .max_message_bytes = config.max_message_mb << 20};
}

// The address that was bound; "off" for none.
std::string WithPort(const std::string& address, int port) {
  if (address.empty()) return "off";
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

void LogLoaded(const std::string& name, const ModelInfo& info) {
  LogEvent(spdlog::level::info, "loaded",
           {{"model", name},
            {"device", info.device},
            {"dtype", std::string(Name(info.dtype))},
            {"weights_mb", info.weight_bytes >> 20}});
}

}  // namespace

// In the order of their dependence: each part uses only those above it.
struct Server::Parts {
  Parts(const Config& config, ModelLoader load_model, std::function<void()> on_failure)
      : config(config),
        on_failure(std::move(on_failure)),
        models(MakeOptions(std::move(load_model))) {}

  ModelRepository::Options MakeOptions(ModelLoader load_model) {
    ModelRepository::Options options = RepositoryOptions(config);
    options.load_model = std::move(load_model);
    options.make_observer = [this](const std::string& model) {
      return metrics.MakeObserver(model);
    };
    options.on_change = [this](const ModelStatus& status) {
      metrics.SetModelReady(status.name, status.state == ModelState::kReady);
      grpc->SetModelServing(status.name, status.state == ModelState::kReady);
    };
    options.on_lost = [this](const std::string& model, const absl::Status& status) {
      Fail(model, status);
    };
    return options;
  }

  void Fail(const std::string& model, const absl::Status& status);
  absl::Status Listen();
  absl::Status LoadModels();

  const Config config;
  const std::function<void()> on_failure;
  std::atomic<bool> has_failed{false};
  Metrics metrics{EVASERVE_VERSION};
  ServingState state;
  RequestLog log{metrics};
  ModelRepository models;
  std::unique_ptr<GrpcServer> grpc;
  std::unique_ptr<MetricsServer> http;
};

void Server::Parts::Fail(const std::string& model, const absl::Status& status) {
  if (has_failed.exchange(true)) return;
  LogEvent(spdlog::level::critical, "model lost",
           {{"model", model}, {"reason", std::string(status.message())}});
  state.SetDraining();
  grpc->SetNotServingForGood();
  on_failure();
}

absl::Status Server::Parts::Listen() {
  auto listening = GrpcServer::Start(RpcOptions(config), models, state, log);
  if (!listening.ok()) return listening.status();
  grpc = *std::move(listening);
  if (config.metrics_address.empty()) return absl::OkStatus();

  auto serving = MetricsServer::Start(
      config.metrics_address,
      {.metrics = [this] { return metrics.Text(); }, .ready = [this] { return state.Check(); }});
  if (!serving.ok()) return serving.status();
  http = *std::move(serving);
  return absl::OkStatus();
}

absl::Status Server::Parts::LoadModels() {
  for (const ModelSpec& model : config.models) {
    const absl::Status status = models.Load(model.name, model.directory);
    if (status.ok()) {
      LogLoaded(model.name, (*models.Find(model.name))->info());
      continue;
    }
    return absl::Status(status.code(),
                        absl::StrCat("model '", model.name, "' in ", model.directory.string(), ": ",
                                     status.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config, ModelLoader load_model,
                                                      std::function<void()> on_failure) {
  const TimePoint start = Clock::now();
  auto parts = std::make_unique<Parts>(config, std::move(load_model), std::move(on_failure));
  if (absl::Status status = parts->Listen(); !status.ok()) return status;
  if (absl::Status status = parts->LoadModels(); !status.ok()) return status;
  parts->state.SetServing();
  parts->grpc->SetServing(true);

  std::unique_ptr<Server> server(new Server(std::move(parts)));
  const auto load_time =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  LogEvent(spdlog::level::info, "ready",
           {{"grpc", WithPort(config.address, server->grpc_port())},
            {"metrics", WithPort(config.metrics_address, server->metrics_port())},
            {"models", config.models.size()},
            {"start_ms", load_time.count()},
            {"resident_mb", ResidentBytes() >> 20}});
  return server;
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

// GrpcServer's destructor cancels the calls, which frees their sequences; the engines go after it.
Server::~Server() = default;

int Server::grpc_port() const { return parts_->grpc->port(); }

int Server::metrics_port() const { return parts_->http == nullptr ? 0 : parts_->http->port(); }

bool Server::has_failed() const { return parts_->has_failed; }

void Server::Shutdown() {
  const TimePoint deadline = Clock::now() + parts_->config.drain_timeout;
  LogEvent(spdlog::level::info, "draining", {{"in_flight", parts_->log.in_flight()}});
  parts_->state.SetDraining();
  parts_->grpc->SetNotServingForGood();
  parts_->models.DrainAll();
  parts_->models.WaitUntilIdle(deadline);
  const bool is_idle = parts_->log.WaitUntilIdle(deadline);  // the last bytes are on their way
  LogEvent(spdlog::level::info, "stopping", {{"in_flight", parts_->log.in_flight()}});
  // Connections without a call close by themselves when they hear of the end.
  constexpr std::chrono::milliseconds kFarewell{500};
  parts_->grpc->Shutdown(is_idle ? Clock::now() + kFarewell : Clock::now());
}

}  // namespace evaserve

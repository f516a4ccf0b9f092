#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "models/model.h"
#include "server/config.h"

namespace evaserve {

// The whole server: models, engines, gRPC, metrics. The one place that connects them. Thread-safe.
class Server {
 public:
  // LoadAnyModel(), or a test's stand-in.
  using ModelLoader = std::function<absl::StatusOr<AnyModel>(
      const std::filesystem::path& directory, const LoadOptions& options, WorkerPool& pool)>;

  // Listens first, so that a taken port shows at once and probes get an answer, then loads every
  // model of `config`, then is ready. The log is the caller's business.
  //
  // If a model's device is lost later, health turns to NOT_SERVING for good and on_failure is
  // called, on any thread: then the process should end, and another one begin.
  //
  // Errors: InvalidArgument for certificates or tokens that cannot be used, naming the file;
  // Unavailable for an address that cannot be listened on; LoadAnyModel()'s, naming the model,
  // if one cannot be loaded.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const Config& config, ModelLoader load_model = LoadAnyModel,
      std::function<void()> on_failure = [] {});

  // Ends what is in flight with Unavailable.
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int grpc_port() const;
  int metrics_port() const;  // 0 if metrics are off

  // Sets health to NOT_SERVING, refuses new requests with Unavailable, lets those in flight go on
  // for config.drain_timeout, then cancels the rest. Returns when nothing is in flight.
  void Shutdown();

  // A model's device was lost.
  bool has_failed() const;

 private:
  struct Parts;

  explicit Server(std::unique_ptr<Parts> parts);

  const std::unique_ptr<Parts> parts_;
};

}  // namespace evaserve

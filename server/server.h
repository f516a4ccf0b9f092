#pragma once

#include <chrono>
#include <filesystem>
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

  // Listens, so that a taken port shows at once and probes get an answer, and begins to load every
  // model of `config`, on a thread of its own. The log is the caller's business.
  //
  // on_failure is called, on any thread, if a model that must load does not (see load_status()), or
  // if a model's device is lost, from when on health is NOT_SERVING for good: then the process
  // should end, and another one begin.
  //
  // Errors: InvalidArgument for certificates or tokens that cannot be used, naming the file;
  // Unavailable for an address that cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Server>> Listen(
      const Config& config, ModelLoader load_model = LoadAnyModel,
      std::function<void()> on_failure = [] {});

  // Listen() and WaitUntilLoaded(), with the errors of both.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const Config& config, ModelLoader load_model = LoadAnyModel,
      std::function<void()> on_failure = [] {});

  // Ends what is in flight with Unavailable. Waits for a model that is being loaded, and for steps
  // that have begun.
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int grpc_port() const;
  int metrics_port() const;  // 0 if metrics are off

  // Returns when all models of the start are loaded, and the server is ready, or load_status() says
  // why it is not.
  absl::Status WaitUntilLoaded();

  // OK before that is known. LoadAnyModel()'s error, naming the model, if one cannot be loaded;
  // Unavailable if its end came first.
  absl::Status load_status() const;

  // Sets health to NOT_SERVING, begins to load no more models, closes the port and sends clients
  // elsewhere, refuses what still comes with Unavailable, lets requests in flight go on for
  // config.drain_timeout, then cancels the rest. Returns when nothing is in flight; a model may
  // still be loading.
  //
  // False if what was cancelled takes longer than `patience`, as when a step does not end: then the
  // log names its model, and the process has to end without the destructor, which would wait.
  bool Shutdown(std::chrono::milliseconds patience = std::chrono::seconds(5));

  // After Shutdown(): nobody can break off the load of a model, and the destructor waits for it.
  bool is_loading() const;

  // A model's device was lost.
  bool has_failed() const;

 private:
  struct Parts;

  explicit Server(std::unique_ptr<Parts> parts);

  const std::unique_ptr<Parts> parts_;
};

}  // namespace evaserve

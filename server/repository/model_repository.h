#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "models/model.h"
#include "server/engine/engine.h"
#include "server/engine/observer.h"

namespace evaserve {

enum class ModelState { kLoading, kReady, kUnavailable };

struct ModelStatus {
  std::string name;
  std::string version = "1";
  ModelState state = ModelState::kLoading;
  std::string reason;  // why it is unavailable
};

// The models of a server by name, each with its engine. A model that fails to load keeps its
// reason, and the others serve on.
//
// Thread-safe.
class ModelRepository {
 public:
  struct Options {
    EngineOptions engine;
    LoadOptions load;
    // Threads for the kernels of each model.
    int num_threads = 1;
    // Makes the listener of a model's engine, which lives as long as the engine.
    std::function<std::unique_ptr<EngineObserver>(const std::string& model)> make_observer;
    // Told of every change, on the thread that loads.
    std::function<void(const ModelStatus&)> on_change = [](const ModelStatus&) {};
    // Told, on the engine's thread, that a model's device is lost.
    std::function<void(const std::string& model, const absl::Status&)> on_lost =
        [](const std::string&, const absl::Status&) {};
    // Replaced in tests.
    std::function<absl::StatusOr<std::unique_ptr<Model>>(const std::filesystem::path& directory,
                                                         const LoadOptions&, WorkerPool&)>
        load_model = LoadModel;
  };

  explicit ModelRepository(Options options) : options_(std::move(options)) {}

  // Ends what is in flight with Unavailable, once nobody else holds the engines.
  ~ModelRepository() = default;

  // Loads a model on the calling thread; meanwhile it is listed as loading. A model that failed can
  // be loaded again. Errors: AlreadyExists if it is loading or ready, else LoadModel()'s.
  absl::Status Load(const std::string& name, const std::filesystem::path& directory);

  // The engine of a model that is ready; an empty name means the only model there is. Errors:
  // InvalidArgument for an empty name when there are several; NotFound for an unknown name, both
  // listing the names; Unavailable, with the reason, for a model that is not ready.
  absl::StatusOr<std::shared_ptr<Engine>> Find(std::string_view name) const;

  // Sorted by name.
  std::vector<ModelStatus> List() const;

  // Refuses new requests of all models from now on, also of those that are still loading.
  void DrainAll();

  // Waits until no model has a request in flight or `deadline` comes; true if none has.
  bool WaitUntilIdle(TimePoint deadline) const;

 private:
  struct Entry {
    ModelStatus status;
    std::shared_ptr<Engine> engine;  // of a model that is ready
  };

  absl::StatusOr<std::shared_ptr<Engine>> MakeEngine(const std::string& name,
                                                     const std::filesystem::path& directory) const;
  absl::Status BeginLoading(const std::string& name);
  void EndLoading(const ModelStatus& status, std::shared_ptr<Engine> engine);
  std::vector<std::shared_ptr<Engine>> Engines() const;
  std::string Names() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Entry, std::less<>> entries_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace evaserve

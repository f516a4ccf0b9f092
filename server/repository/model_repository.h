#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "models/tensor_model.h"
#include "server/engine/any_engine.h"
#include "server/engine/observer.h"
#include "server/repository/model_source.h"

namespace evaserve {

enum class ModelState { kLoading, kReady, kUnloading, kUnavailable };

// Of a model that is unavailable because it was asked to be.
inline constexpr char kUnloadedReason[] = "unloaded";

// "LOADING", "READY", ...
const char* Name(ModelState state);

struct ModelStatus {
  std::string name;
  int64_t version = 1;
  ModelState state = ModelState::kLoading;
  // Why it is unavailable; of a model that is ready: why it could not be loaded anew, if so.
  std::string reason;
};

// Whether it was asked to go: it is unloaded, or will be.
bool IsUnloaded(const ModelStatus& status);

// A model that is ready.
struct ReadyModel {
  std::string name;
  int64_t version = 1;
  // Held as long as a request is in flight. One of them is null.
  std::shared_ptr<Engine> engine;         // of a model that takes sequences of tokens
  std::shared_ptr<TensorEngine> tensors;  // of one that takes tensors

  AnyEngine any() const { return {engine, tensors}; }
};

// Some of the models, by their names.
using ModelFilter = absl::FunctionRef<bool(std::string_view model)>;

inline bool EveryModel(std::string_view model) { return true; }

// How an error ends that tells which models there are: "there are: a, b", or none.
std::string ThereAre(const std::vector<std::string>& names);

// The models of a server by name and version, each with its engine. A model that fails to load
// keeps its reason, and the others serve on. An engine that was replaced or unloaded ends what it
// has in flight.
//
// Thread-safe.
class ModelRepository {
 public:
  struct Options {
    // Makes the listener of a model's engine, which lives as long as the engine.
    std::function<std::unique_ptr<EngineObserver>(const std::string& model, int64_t version)>
        make_observer;
    // Told of every change, on the thread that made it: when it hears of one, another may have
    // come.
    std::function<void(const ModelStatus&)> on_change = [](const ModelStatus&) {};
    // Told, on the engine's thread, that a model's device is lost.
    std::function<void(const std::string& model, const absl::Status&)> on_lost =
        [](const std::string&, const absl::Status&) {};
    // Replaced in tests.
    std::function<absl::StatusOr<AnyModel>(const std::filesystem::path& directory,
                                           const LoadOptions&, WorkerPool&)>
        load_model = LoadAnyModel;
  };

  explicit ModelRepository(Options options) : options_(std::move(options)) {}

  // Ends what is in flight with Unavailable, once nobody else holds the engines.
  ~ModelRepository() = default;

  // Loads a model on the calling thread; meanwhile it is listed as loading. One that is ready
  // serves on until the new one takes its place, and for good if that fails; one that is unloading
  // goes on to end beside the new one. Errors: AlreadyExists if it is being loaded, else
  // LoadModel()'s.
  absl::Status Load(const ModelSource& source);

  // Takes no more requests for a version; Sweep() frees it. One that could not be loaded is not
  // missed any more. Errors: NotFound for one that is not known, FailedPrecondition for one that is
  // being loaded, or unloaded already.
  absl::Status Unload(const std::string& name, int64_t version);

  // Notes why a model could not even be tried. One that is ready serves on.
  void Fail(const std::string& name, const absl::Status& status);

  // Frees engines that were replaced or unloaded and have nothing in flight any more; true if there
  // are others left. Call it now and then.
  bool Sweep();

  // A model that is ready. An empty name means the only model of `shown` that there is, version 0
  // the highest that is ready. Errors: InvalidArgument for an empty name when there are several;
  // NotFound for an unknown name or version, both listing what there is of `shown`; Unavailable,
  // with the reason, for a model that is not ready.
  absl::StatusOr<ReadyModel> Find(std::string_view name, int64_t version = 0,
                                  ModelFilter shown = EveryModel) const;

  // Whether it was ever loaded or tried.
  bool Knows(std::string_view name) const;

  // All that was ever loaded or tried, by name and version.
  std::vector<ModelStatus> List() const;
  // The engines of all that is ready.
  std::vector<ReadyModel> Ready() const;
  // Those, and the engines of what was unloaded or replaced and is not freed yet.
  std::vector<ReadyModel> Engines() const;

  // Refuses new requests of all models from now on, also of those that are still loading.
  void DrainAll();

  // Waits until no model has a request in flight or `deadline` comes; true if none has.
  bool WaitUntilIdle(TimePoint deadline) const;

 private:
  struct Entry {
    ModelStatus status;
    bool is_loading = false;  // perhaps anew
    AnyEngine engine;         // if it is ready
  };
  // Of what is not served any more.
  struct Retired {
    AnyEngine engine;
    std::string name;
    int64_t version = 1;
  };
  using Versions = std::map<int64_t, Entry>;

  absl::StatusOr<AnyEngine> MakeEngine(const ModelSource& source) const;
  absl::StatusOr<ModelStatus> BeginLoading(const ModelSource& source);
  ModelStatus EndLoading(const ModelSource& source, absl::StatusOr<AnyEngine> engine);
  std::vector<ModelStatus> EndUnloading();
  std::vector<ReadyModel> ReadyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::string> Names(ModelFilter shown) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  absl::Mutex sweeping_;  // held by Sweep(), so that what one frees is free when another returns
  mutable absl::Mutex mutex_;
  std::map<std::string, Versions, std::less<>> models_ ABSL_GUARDED_BY(mutex_);
  std::vector<Retired> retired_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace evaserve

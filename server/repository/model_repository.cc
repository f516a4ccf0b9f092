#include "server/repository/model_repository.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/give_way.h"
#include "models/memory_guard.h"
#include "server/engine/thread_pool.h"
#include "server/repository/warm_up.h"

namespace evaserve {
namespace {

// What an engine needs, in the order in which it has to be there.
struct LoadedModel {
  explicit LoadedModel(int num_threads) : pool(num_threads) {}

  ThreadPool pool;
  std::unique_ptr<EngineObserver> observer;
  std::unique_ptr<ModelEngine> engine;
};

// `engine` of `loaded`, which lives as long.
template <typename SomeEngine>
std::shared_ptr<SomeEngine> Keep(std::shared_ptr<LoadedModel> loaded,
                                 std::unique_ptr<SomeEngine> engine) {
  SomeEngine* kept = engine.get();
  loaded->engine = std::move(engine);
  return std::shared_ptr<SomeEngine>(std::move(loaded), kept);
}

// Runs `work`, which may take a core for long, at a low priority and giving way now and then, so
// that threads that serve go first. Helpers of a pool that it uses give way too, but keep their
// priority, as they will serve. On a new thread: without privileges no priority can be raised
// again, and threads inherit it. What `work` throws is thrown here.
template <typename Work>
std::invoke_result_t<Work> InBackground(Work work) {
  constexpr int kNice = 10;
  std::packaged_task<std::invoke_result_t<Work>()> task(std::move(work));
  std::thread thread([&] {
    pthread_setname_np(pthread_self(), "eva-load");
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
    const BackgroundScope in_background;
    task();
  });
  thread.join();
  return task.get_future().get();
}

absl::Status WarmUpIfItGenerates(AnyModel& model, int num_tokens) {
  auto* const sequences = std::get_if<std::unique_ptr<Model>>(&model);
  if (sequences == nullptr || num_tokens == 0) return absl::OkStatus();
  absl::Status status = WarmUp(**sequences, num_tokens);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("warm-up: ", std::string(status.message())));
}

std::string Title(std::string_view name, int64_t version) {
  return absl::StrCat("model \"", std::string(name), "\" version ", version);
}

}  // namespace

std::string ThereAre(const std::vector<std::string>& names) {
  return absl::StrCat("there are: ", names.empty() ? "none" : absl::StrJoin(names, ", "));
}

const char* Name(ModelState state) {
  switch (state) {
    case ModelState::kLoading:
      return "LOADING";
    case ModelState::kReady:
      return "READY";
    case ModelState::kUnloading:
      return "UNLOADING";
    case ModelState::kUnavailable:
      return "UNAVAILABLE";
  }
  return "UNKNOWN";
}

bool IsUnloaded(const ModelStatus& status) {
  return status.state == ModelState::kUnloading ||
         (status.state == ModelState::kUnavailable && status.reason == kUnloadedReason);
}

absl::StatusOr<AnyEngine> ModelRepository::MakeEngine(const ModelSource& source) const {
  const ServingSettings& settings = source.settings;
  auto loaded = std::make_shared<LoadedModel>(settings.num_threads);
  absl::StatusOr<AnyModel> model = InBackground([&]() -> absl::StatusOr<AnyModel> {
    auto made = options_.load_model(source.directory, settings.load, loaded->pool);
    if (!made.ok()) return made;
    absl::Status status = WarmUpIfItGenerates(*made, settings.warmup_tokens);
    if (!status.ok()) return status;
    return made;
  });
  if (!model.ok()) return model.status();
  auto* const sequences = std::get_if<std::unique_ptr<Model>>(&*model);
  loaded->observer = options_.make_observer(source.name, source.version);
  EngineObserver& observer = *loaded->observer;
  EngineOptions options = settings.engine;
  options.on_model_lost = [name = source.name, on_lost = options_.on_lost](
                              const absl::Status& status) { on_lost(name, status); };
  AnyEngine engine;
  if (sequences != nullptr) {
    engine.sequences =
        Keep(std::move(loaded), std::make_unique<Engine>(std::move(*sequences), options, observer));
  } else {
    auto& tensors = std::get<std::unique_ptr<TensorModel>>(*model);
    engine.tensors = Keep(std::move(loaded),
                          std::make_unique<TensorEngine>(std::move(tensors), options, observer));
  }
  return engine;
}

absl::Status ModelRepository::Load(const ModelSource& source) {
  const absl::StatusOr<ModelStatus> begun = BeginLoading(source);
  if (!begun.ok()) return begun.status();
  // One that serves on meanwhile has not changed.
  if (begun->state == ModelState::kLoading) options_.on_change(*begun);
  // Without memory this model fails, and the others serve on.
  absl::StatusOr<AnyEngine> engine =
      GuardMemory(source.directory.string(), [&] { return MakeEngine(source); });
  absl::Status status = engine.status();
  options_.on_change(EndLoading(source, std::move(engine)));
  return status;
}

absl::StatusOr<ModelStatus> ModelRepository::BeginLoading(const ModelSource& source) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = models_[source.name][source.version];
  if (entry.is_loading) {
    return absl::AlreadyExistsError(
        absl::StrCat(Title(source.name, source.version), " is loading already"));
  }
  entry.is_loading = true;
  if (!entry.engine) {
    entry.status = {source.name, source.version, ModelState::kLoading, ""};
  }
  return entry.status;
}

ModelStatus ModelRepository::EndLoading(const ModelSource& source,
                                        absl::StatusOr<AnyEngine> engine) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = models_[source.name][source.version];
  entry.is_loading = false;
  entry.status.reason = std::string(engine.status().message());
  if (!engine.ok()) {
    if (!entry.engine) entry.status.state = ModelState::kUnavailable;
    return entry.status;
  }
  if (draining_) (*engine)->Drain();
  if (entry.engine) retired_.push_back({std::move(entry.engine), source.name, source.version});
  entry.status.state = ModelState::kReady;
  entry.engine = *std::move(engine);
  return entry.status;
}

absl::Status ModelRepository::Unload(const std::string& name, int64_t version) {
  ModelStatus status;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = models_.find(name);
    if (found == models_.end() || !found->second.contains(version)) {
      return absl::NotFoundError(absl::StrCat("there is no ", Title(name, version)));
    }
    Entry& entry = found->second[version];
    if (entry.is_loading || IsUnloaded(entry.status)) {
      return absl::FailedPreconditionError(
          absl::StrCat(Title(name, version), " is not ready: ", Name(entry.status.state)));
    }
    if (entry.engine) {
      entry.status.state = ModelState::kUnloading;
      entry.status.reason.clear();
      retired_.push_back({std::move(entry.engine), name, version});
      entry.engine = {};
    } else {
      entry.status.reason = kUnloadedReason;
    }
    status = entry.status;
  }
  options_.on_change(status);
  return absl::OkStatus();
}

void ModelRepository::Fail(const std::string& name, const absl::Status& status) {
  std::vector<ModelStatus> changed;
  {
    absl::MutexLock lock(&mutex_);
    Versions& versions = models_[name];
    if (versions.empty()) versions[1].status = {name, 1, ModelState::kUnavailable, ""};
    for (auto& [version, entry] : versions) {
      if (entry.status.reason == status.message()) continue;
      entry.status.reason = std::string(status.message());
      changed.push_back(entry.status);
    }
  }
  for (const ModelStatus& one : changed) options_.on_change(one);
}

bool ModelRepository::Sweep() {
  absl::MutexLock one_at_a_time(&sweeping_);
  std::vector<Retired> done;
  bool others = false;
  {
    absl::MutexLock lock(&mutex_);
    const auto ended = std::partition(retired_.begin(), retired_.end(), [](const Retired& r) {
      return r.engine.is_shared() || !r.engine->WaitUntilIdle(Clock::now());
    });
    std::move(ended, retired_.end(), std::back_inserter(done));
    retired_.erase(ended, retired_.end());
    others = !retired_.empty();
  }
  if (done.empty()) return others;
  done.clear();
  for (const ModelStatus& status : EndUnloading()) options_.on_change(status);
  malloc_trim(0);  // a model's memory is the system's again
  return others;
}

// What was to be unloaded and has no engine left, not even one that was replaced before.
std::vector<ModelStatus> ModelRepository::EndUnloading() {
  absl::MutexLock lock(&mutex_);
  std::vector<ModelStatus> ended;
  for (auto& [name, versions] : models_) {
    for (auto& [version, entry] : versions) {
      const bool is_held = std::any_of(retired_.begin(), retired_.end(),
                                       [name = &name, version = version](const Retired& r) {
                                         return r.name == *name && r.version == version;
                                       });
      if (entry.status.state != ModelState::kUnloading || is_held) continue;
      entry.status.state = ModelState::kUnavailable;
      entry.status.reason = kUnloadedReason;
      ended.push_back(entry.status);
    }
  }
  return ended;
}

absl::StatusOr<ReadyModel> ModelRepository::Find(std::string_view name, int64_t version,
                                                 ModelFilter shown) const {
  absl::MutexLock lock(&mutex_);
  auto model = models_.find(name);
  if (model == models_.end()) {
    const std::vector<std::string> names = Names(shown);
    if (name.empty() && names.size() > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("the model's name is empty, but there is more than one; ", ThereAre(names)));
    }
    if (!name.empty() || names.empty()) {
      return absl::NotFoundError(
          absl::StrCat("no model \"", std::string(name), "\"; ", ThereAre(names)));
    }
    model = models_.find(names.front());
  }
  const Versions& versions = model->second;
  auto found = versions.find(version);
  if (version == 0) {
    // The highest that is ready, or else the highest.
    found = std::prev(versions.end());
    for (auto i = versions.begin(); i != versions.end(); ++i) {
      if (i->second.engine) found = i;
    }
  }
  if (found == versions.end()) {
    std::string known;
    for (const auto& [number, entry] : versions) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", number);
    }
    return absl::NotFoundError(absl::StrCat("model \"", model->first, "\" has no version ", version,
                                            "; there are: ", known));
  }
  const Entry& entry = found->second;
  if (entry.engine) {
    return ReadyModel{model->first, found->first, entry.engine.sequences, entry.engine.tensors};
  }
  const std::string title = Title(model->first, found->first);
  if (entry.status.state != ModelState::kUnavailable) {
    return absl::UnavailableError(absl::StrCat(
        title, entry.status.state == ModelState::kLoading ? " is loading" : " is unloading"));
  }
  return absl::UnavailableError(absl::StrCat(title, " is unavailable: ", entry.status.reason));
}

bool ModelRepository::Knows(std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  return models_.find(name) != models_.end();
}

std::vector<ModelStatus> ModelRepository::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<ModelStatus> list;
  for (const auto& [name, versions] : models_) {
    for (const auto& [version, entry] : versions) list.push_back(entry.status);
  }
  return list;
}

std::vector<ReadyModel> ModelRepository::Ready() const {
  absl::MutexLock lock(&mutex_);
  return ReadyLocked();
}

std::vector<ReadyModel> ModelRepository::ReadyLocked() const {
  std::vector<ReadyModel> ready;
  for (const auto& [name, versions] : models_) {
    for (const auto& [version, entry] : versions) {
      if (!entry.engine) continue;
      ready.push_back({name, version, entry.engine.sequences, entry.engine.tensors});
    }
  }
  return ready;
}

std::vector<ReadyModel> ModelRepository::Engines() const {
  absl::MutexLock lock(&mutex_);
  std::vector<ReadyModel> engines = ReadyLocked();
  for (const auto& [engine, name, version] : retired_) {
    engines.push_back({name, version, engine.sequences, engine.tensors});
  }
  return engines;
}

void ModelRepository::DrainAll() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  for (const ReadyModel& model : Engines()) model.any()->Drain();
}

bool ModelRepository::WaitUntilIdle(TimePoint deadline) const {
  bool idle = true;
  for (const ReadyModel& model : Engines()) idle &= model.any()->WaitUntilIdle(deadline);
  return idle;
}

std::vector<std::string> ModelRepository::Names(ModelFilter shown) const {
  std::vector<std::string> names;
  for (const auto& [name, versions] : models_) {
    if (shown(name)) names.push_back(name);
  }
  return names;
}

}  // namespace evaserve

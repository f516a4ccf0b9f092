#include "server/repository/model_repository.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/thread_pool.h"

namespace evaserve {
namespace {

// What an engine needs, in the order in which it has to be there.
struct LoadedModel {
  explicit LoadedModel(int num_threads) : pool(num_threads) {}

  ThreadPool pool;
  std::unique_ptr<EngineObserver> observer;
  std::unique_ptr<Engine> engine;
};

ModelStatus Loading(const std::string& name) {
  ModelStatus status;
  status.name = name;
  status.state = ModelState::kLoading;
  return status;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Engine>> ModelRepository::MakeEngine(
    const std::string& name, const std::filesystem::path& directory) const {
  auto loaded = std::make_shared<LoadedModel>(options_.num_threads);
  absl::StatusOr<std::unique_ptr<Model>> model =
      options_.load_model(directory, options_.load, loaded->pool);
  if (!model.ok()) return model.status();
  loaded->observer = options_.make_observer(name);
  EngineOptions engine = options_.engine;
  engine.on_model_lost = [name, on_lost = options_.on_lost](const absl::Status& status) {
    on_lost(name, status);
  };
  loaded->engine = std::make_unique<Engine>(*std::move(model), engine, *loaded->observer);
  return std::shared_ptr<Engine>(loaded, loaded->engine.get());
}

absl::Status ModelRepository::Load(const std::string& name,
                                   const std::filesystem::path& directory) {
  if (absl::Status status = BeginLoading(name); !status.ok()) return status;
  ModelStatus status = Loading(name);
  options_.on_change(status);

  absl::StatusOr<std::shared_ptr<Engine>> engine = MakeEngine(name, directory);
  if (engine.ok()) {
    status.state = ModelState::kReady;
  } else {
    status.state = ModelState::kUnavailable;
    status.reason = std::string(engine.status().message());
  }
  EndLoading(status, engine.value_or(nullptr));
  options_.on_change(status);
  return engine.status();
}

absl::Status ModelRepository::BeginLoading(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  const auto [found, is_new] = entries_.try_emplace(name);
  Entry& entry = found->second;
  if (!is_new && entry.status.state != ModelState::kUnavailable) {
    return absl::AlreadyExistsError(absl::StrCat("there is a model \"", name, "\" already"));
  }
  entry.status = Loading(name);
  return absl::OkStatus();
}

void ModelRepository::EndLoading(const ModelStatus& status, std::shared_ptr<Engine> engine) {
  absl::MutexLock lock(&mutex_);
  if (draining_ && engine != nullptr) engine->Drain();
  entries_[status.name] = {status, std::move(engine)};
}

absl::StatusOr<std::shared_ptr<Engine>> ModelRepository::Find(std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  if (name.empty() && entries_.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model's name is empty and there are several models: ", Names()));
  }
  const auto found = name.empty() ? entries_.begin() : entries_.find(name);
  if (found == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat("no model \"", std::string(name), "\"; there are: ", Names()));
  }
  const Entry& entry = found->second;
  switch (entry.status.state) {
    case ModelState::kReady:
      return entry.engine;
    case ModelState::kLoading:
      return absl::UnavailableError(absl::StrCat("model \"", found->first, "\" is loading"));
    case ModelState::kUnavailable:
      break;
  }
  return absl::UnavailableError(
      absl::StrCat("model \"", found->first, "\" is unavailable: ", entry.status.reason));
}

std::vector<ModelStatus> ModelRepository::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<ModelStatus> list;
  for (const auto& [name, entry] : entries_) list.push_back(entry.status);
  return list;
}

void ModelRepository::DrainAll() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  for (const std::shared_ptr<Engine>& engine : Engines()) engine->Drain();
}

bool ModelRepository::WaitUntilIdle(TimePoint deadline) const {
  bool idle = true;
  for (const std::shared_ptr<Engine>& engine : Engines()) idle &= engine->WaitUntilIdle(deadline);
  return idle;
}

std::vector<std::shared_ptr<Engine>> ModelRepository::Engines() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Engine>> engines;
  for (const auto& [name, entry] : entries_) {
    if (entry.engine != nullptr) engines.push_back(entry.engine);
  }
  return engines;
}

std::string ModelRepository::Names() const {
  if (entries_.empty()) return "none";
  std::string names;
  for (const auto& [name, entry] : entries_) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  return names;
}

}  // namespace evaserve

#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "nlohmann/json.hpp"
#include "server/poller.h"
#include "server/repository/model_repository.h"
#include "server/repository/model_source.h"

namespace evaserve {

enum class ControlMode {
  kNone,      // what is there at the start is loaded, and stays
  kPoll,      // what is there is loaded; changes of the directory are followed
  kExplicit,  // clients load and unload
};

// Decides which models are loaded. Loading goes on on a thread of its own, one model after another,
// so that it holds up neither requests nor callers; on another one, models that were unloaded or
// replaced are freed. Thread-safe.
class RepositoryControl {
 public:
  struct Options {
    ControlMode mode = ControlMode::kNone;
    std::chrono::milliseconds poll_interval{15'000};
    std::optional<RepositoryDirectory> directory = {};
    // In mode kExplicit, what of the directory is loaded at the start; "*" is all.
    std::vector<std::string> load_at_start = {};
    // Models in directories of their own, which are loaded at the start in every mode.
    std::map<std::string, std::filesystem::path> fixed = {};
    ServingSettings defaults = {};
    // Told, on the control's thread, which models of the directory that were to be there from the
    // start are missing: they could not be loaded, and were neither loaded nor unloaded since, nor
    // has their directory gone. Before Start()'s `done` if there are any, and when one less is.
    std::function<void(const std::set<std::string>& models)> on_missing =
        [](const std::set<std::string>&) {};
    // Told, on the control's thread, of directories beside a model's versions that look like one
    // and are ignored because of their names.
    std::function<void(const std::string& model, const std::vector<std::string>& directories)>
        on_ignored = [](const std::string&, const std::vector<std::string>&) {};
  };

  using Done = std::function<void(absl::Status)>;

  // `models` must outlive it.
  RepositoryControl(Options options, ModelRepository& models);
  ~RepositoryControl();  // as Stop(TimePoint::max())

  // Begins to load what is to be there from the start; to be called once. `done` is called when all
  // of it was tried: models of the directory that fail keep their reason; errors are those of a
  // fixed model or of one that is asked for by name, NotFound without the directory, and
  // Unavailable if its end came first.
  void Start(const Done& done);

  // From now on nothing more is begun: what was asked for and has not begun, and whatever is asked
  // for later, ends with Unavailable. A model that is being loaded is loaded to its end.
  void BeginStop();

  // BeginStop(), and waits until `deadline` for the model that is being loaded. False if that takes
  // longer; then who asked for it has been told Unavailable. One thread at a time.
  bool Stop(TimePoint deadline);

  // Loads a model, or loads it anew if its files or `changes` of its settings say so. When all that
  // its policy chooses is ready, and not before, the other versions are unloaded. `done` is called
  // on the control's thread, with the error of the first version that failed, or at once: with
  // Unimplemented unless the mode is kExplicit, InvalidArgument or NotFound for a bad name.
  void Load(const std::string& name, const nlohmann::json& changes, const Done& done);
  // Unloads all versions of a model. Their memory is free when what they have in flight has ended.
  void Unload(const std::string& name, const Done& done);

  // Every model of the directory and of the server; version 0 and UNAVAILABLE if it was never
  // loaded.
  std::vector<ModelStatus> Index() const;

 private:
  using Work = std::function<absl::Status()>;
  struct Job {
    Work work;
    Done done;
  };
  // What a load of a version came to that will not change unless its files do.
  struct Tried {
    uint64_t stamp = 0;  // of the files
    bool is_loaded = false;
    bool has_changes = false;  // of its settings, which the next load without them undoes
  };
  // Which of a model's versions are loaded.
  enum class Which { kChanged, kChangedOrFailed, kAll };

  void Run();
  void RunNextJob();
  void Enqueue(Work work, const Done& done);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !jobs_.empty(); }
  bool IsStopping() const;
  absl::Status CheckAsked(const std::string& name) const;
  absl::StatusOr<std::vector<ModelSource>> Versions(const std::string& name,
                                                    const nlohmann::json& changes) const;
  void TellOfIgnored(const std::string& name);
  std::vector<std::string> NamesToFollow() const;
  // On the control's thread, as what follows.
  absl::Status LoadAtStart();
  void MissNoMore(const std::string& name);
  bool IsDone(const ModelSource& source, Which which) const;
  absl::Status Apply(const std::string& name, const nlohmann::json& changes, Which which);
  void UnloadOthers(const std::string& name, const std::set<int64_t>& chosen);
  absl::Status UnloadAll(const std::string& name);
  void Poll();

  const Options options_;
  ModelRepository& models_;
  std::map<std::string, std::map<int64_t, Tried>> tried_;    // by name and version
  std::map<std::string, std::vector<std::string>> ignored_;  // as told, by name
  std::set<std::string> missing_;                            // as told

  mutable absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  Done running_ ABSL_GUARDED_BY(mutex_);  // who waits for the job that is going on
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool has_ended_ ABSL_GUARDED_BY(mutex_) = true;  // the thread
  std::thread thread_;
  std::unique_ptr<Poller> sweeping_;
};

}  // namespace evaserve

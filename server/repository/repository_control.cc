#include "server/repository/repository_control.h"

#include <pthread.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "server/engine/durations.h"

namespace evaserve {
namespace {

const absl::Status kStopped = absl::UnavailableError("the server is shutting down");

// Whether a load of the same files would end in the same way.
bool IsLasting(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:  // the system's errors, as when a disk cannot be read
    case absl::StatusCode::kUnavailable:
      return false;
    default:
      return true;
  }
}

}  // namespace

RepositoryControl::RepositoryControl(Options options, ModelRepository& models)
    : options_(std::move(options)), models_(models) {}

RepositoryControl::~RepositoryControl() { Stop(TimePoint::max()); }

void RepositoryControl::Start(const Done& done) {
  Enqueue([this] { return LoadAtStart(); }, done);
  {
    absl::MutexLock lock(&mutex_);
    has_ended_ = false;
  }
  thread_ = std::thread([this] { Run(); });
  constexpr std::chrono::milliseconds kSweepInterval{50};
  sweeping_ = std::make_unique<Poller>("eva-sweep", kSweepInterval, [this] { models_.Sweep(); });
}

void RepositoryControl::BeginStop() {
  std::deque<Job> left;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    left.swap(jobs_);
  }
  for (const Job& job : left) job.done(kStopped);
}

bool RepositoryControl::Stop(TimePoint deadline) {
  BeginStop();
  sweeping_.reset();
  bool has_ended = false;
  Done interrupted;
  {
    absl::MutexLock lock(&mutex_);
    has_ended = mutex_.AwaitWithTimeout(absl::Condition(&has_ended_), Until(deadline));
    if (!has_ended) interrupted = std::exchange(running_, nullptr);
  }
  if (interrupted) interrupted(kStopped);
  if (has_ended && thread_.joinable()) thread_.join();
  return has_ended;
}

bool RepositoryControl::IsStopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

absl::Status RepositoryControl::LoadAtStart() {
  for (const auto& [name, directory] : options_.fixed) {
    const absl::Status status = Apply(name, nlohmann::json::object(), Which::kChanged);
    if (status.ok()) continue;
    return absl::Status(status.code(), absl::StrCat("model '", name, "' in ", directory.string(),
                                                    ": ", std::string(status.message())));
  }
  if (options_.directory) {
    const absl::StatusOr<std::vector<std::string>> all = options_.directory->Names();
    if (!all.ok()) return all.status();
    const std::vector<std::string>& asked = options_.load_at_start;
    const bool wants_all =
        options_.mode != ControlMode::kExplicit || std::count(asked.begin(), asked.end(), "*") > 0;
    for (const std::string& name : wants_all ? *all : asked) {
      absl::Status status = Apply(name, nlohmann::json::object(), Which::kChanged);
      if (status.ok()) continue;
      const bool is_there = options_.directory->Has(name);
      if (wants_all) {
        if (is_there) missing_.insert(name);
      } else {
        if (is_there) return status;
        return absl::NotFoundError(absl::StrCat(std::string(status.message()),
                                                "; there are: ", absl::StrJoin(*all, ", ")));
      }
    }
  }
  if (!missing_.empty()) options_.on_missing(missing_);
  return IsStopping() ? kStopped : absl::OkStatus();
}

void RepositoryControl::MissNoMore(const std::string& name) {
  if (missing_.erase(name) > 0) options_.on_missing(missing_);
}

absl::StatusOr<std::vector<ModelSource>> RepositoryControl::Versions(
    const std::string& name, const nlohmann::json& changes) const {
  const auto fixed = options_.fixed.find(name);
  if (fixed == options_.fixed.end()) {
    if (options_.directory) return options_.directory->Versions(name, changes);
    return absl::NotFoundError(absl::StrCat("no model \"", name, "\", and no model repository"));
  }
  absl::StatusOr<ModelSource> source = SourceOf(name, fixed->second, options_.defaults, changes);
  if (!source.ok()) return source.status();
  return std::vector<ModelSource>{*std::move(source)};
}

void RepositoryControl::TellOfIgnored(const std::string& name) {
  if (!options_.directory || options_.fixed.contains(name)) return;
  std::vector<std::string> ignored = options_.directory->Misnumbered(name);
  std::vector<std::string>& before = ignored_[name];
  if (ignored == before) return;
  before = std::move(ignored);
  if (!before.empty()) options_.on_ignored(name, before);
}

bool RepositoryControl::IsDone(const ModelSource& source, Which which) const {
  const auto versions = tried_.find(source.name);
  if (which == Which::kAll || versions == tried_.end()) return false;
  const auto tried = versions->second.find(source.version);
  if (tried == versions->second.end() || tried->second.stamp != source.stamp) return false;
  return which == Which::kChanged || (tried->second.is_loaded && !tried->second.has_changes);
}

absl::Status RepositoryControl::Apply(const std::string& name, const nlohmann::json& changes,
                                      Which which) {
  const absl::StatusOr<std::vector<ModelSource>> sources = Versions(name, changes);
  if (!sources.ok()) {
    // Of a name that is not there nothing is kept, and a client's mistake is none of the model.
    const bool is_the_models = !absl::IsNotFound(sources.status()) && changes.empty();
    if (is_the_models) models_.Fail(name, sources.status());
    return sources.status();
  }
  TellOfIgnored(name);
  absl::Status first_error;
  std::set<int64_t> chosen;
  bool all_are_ready = true;
  for (const ModelSource& source : *sources) {
    if (IsStopping()) return kStopped;
    chosen.insert(source.version);
    if (!IsDone(source, which)) {
      const absl::Status status = models_.Load(source);
      if (IsLasting(status)) {
        tried_[name][source.version] = {source.stamp, status.ok(), !changes.empty()};
      }
      if (first_error.ok()) first_error = status;
    }
    all_are_ready = all_are_ready && models_.Find(name, source.version).ok();
  }
  if (all_are_ready) {
    UnloadOthers(name, chosen);
    MissNoMore(name);
  }
  return first_error;
}

void RepositoryControl::UnloadOthers(const std::string& name, const std::set<int64_t>& chosen) {
  for (const ModelStatus& status : models_.List()) {
    if (status.name != name || chosen.contains(status.version)) continue;
    tried_[name].erase(status.version);
    models_.Unload(name, status.version).IgnoreError();  // it may be unloaded
  }
}

absl::Status RepositoryControl::UnloadAll(const std::string& name) {
  tried_.erase(name);
  MissNoMore(name);
  absl::Status result = absl::NotFoundError(absl::StrCat("no model \"", name, "\" is loaded"));
  for (const ModelStatus& status : models_.List()) {
    if (status.name != name || IsUnloaded(status)) continue;
    result = models_.Unload(name, status.version);
  }
  return result;
}

absl::Status RepositoryControl::CheckAsked(const std::string& name) const {
  if (options_.mode != ControlMode::kExplicit) {
    return absl::UnimplementedError(
        "models are not loaded and unloaded by clients here; the server would have to be started "
        "with --model-control-mode=explicit");
  }
  return CheckModelName(name);
}

void RepositoryControl::Load(const std::string& name, const nlohmann::json& changes,
                             const Done& done) {
  if (absl::Status status = CheckAsked(name); !status.ok()) return done(status);
  const Which which = changes.empty() ? Which::kChangedOrFailed : Which::kAll;
  Enqueue([this, name, changes, which] { return Apply(name, changes, which); }, done);
}

void RepositoryControl::Unload(const std::string& name, const Done& done) {
  if (absl::Status status = CheckAsked(name); !status.ok()) return done(status);
  Enqueue([this, name] { return UnloadAll(name); }, done);
}

void RepositoryControl::Enqueue(Work work, const Done& done) {
  absl::Status refused;
  {
    absl::MutexLock lock(&mutex_);
    constexpr size_t kMostJobs = 1024;
    if (stopping_) {
      refused = kStopped;
    } else if (jobs_.size() >= kMostJobs) {
      refused = absl::ResourceExhaustedError("too many models are to be loaded or unloaded");
    } else {
      jobs_.push_back({std::move(work), done});
    }
  }
  if (!refused.ok()) done(refused);
}

std::vector<ModelStatus> RepositoryControl::Index() const {
  std::vector<ModelStatus> index = models_.List();
  std::set<std::string> known;
  for (const ModelStatus& status : index) known.insert(status.name);
  if (options_.directory) {
    for (const std::string& name :
         options_.directory->Names().value_or(std::vector<std::string>())) {
      if (known.contains(name)) continue;
      index.push_back({name, /*version=*/0, ModelState::kUnavailable, "not loaded"});
    }
  }
  std::sort(index.begin(), index.end(), [](const ModelStatus& a, const ModelStatus& b) {
    return std::pair(a.name, a.version) < std::pair(b.name, b.version);
  });
  return index;
}

std::vector<std::string> RepositoryControl::NamesToFollow() const {
  std::vector<std::string> names = options_.directory->Names().value_or(std::vector<std::string>());
  for (const ModelStatus& status : models_.List()) {
    if (!IsUnloaded(status)) names.push_back(status.name);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void RepositoryControl::Poll() {
  // A directory that cannot be read is no reason to unload everything.
  if (!options_.directory || !options_.directory->Names().ok()) return;
  for (const std::string& name : NamesToFollow()) {
    if (options_.fixed.contains(name) || options_.directory->Has(name)) {
      Apply(name, nlohmann::json::object(), Which::kChanged).IgnoreError();  // it keeps its reason
    } else {
      UnloadAll(name).IgnoreError();
    }
  }
}

void RepositoryControl::RunNextJob() {
  Work work;
  {
    absl::MutexLock lock(&mutex_);
    if (jobs_.empty()) return;
    work = std::move(jobs_.front().work);
    running_ = std::move(jobs_.front().done);
    jobs_.pop_front();
  }
  const absl::Status status = work();
  Done done;  // unless it was told already
  {
    absl::MutexLock lock(&mutex_);
    done = std::exchange(running_, nullptr);
  }
  if (done) done(status);
}

void RepositoryControl::Run() {
  pthread_setname_np(pthread_self(), "eva-loader");
  const bool polls = options_.mode == ControlMode::kPoll;
  RunNextJob();  // what is to be there from the start
  TimePoint next_poll = Clock::now() + options_.poll_interval;
  while (!IsStopping()) {
    {
      absl::MutexLock lock(&mutex_);
      absl::Duration wait = absl::InfiniteDuration();
      if (polls) wait = std::max(absl::ZeroDuration(), absl::FromChrono(next_poll - Clock::now()));
      mutex_.AwaitWithTimeout(absl::Condition(this, &RepositoryControl::HasWork), wait);
    }
    RunNextJob();
    if (polls && Clock::now() >= next_poll) {
      Poll();
      next_poll = Clock::now() + options_.poll_interval;
    }
    models_.Sweep();  // the next job finds the memory of what was unloaded and is idle
  }
  absl::MutexLock lock(&mutex_);
  has_ended_ = true;
}

}  // namespace evaserve

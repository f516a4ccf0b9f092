#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/engine.h"
#include "server/engine/request.h"

namespace evaserve {

struct GroupResult {
  std::string text;  // of a generation
  Completion completion;
};

// Runs several requests of one engine together and gives their results as one: the engine takes
// them all or none, and the first that fails cancels the others. It never rests: texts are kept
// until the end. Thread-safe.
class RequestGroup : public RequestHandle, public std::enable_shared_from_this<RequestGroup> {
 public:
  // `results` are in the order of the requests; after an error they are as far as they came.
  using Done = std::function<void(absl::Status status, const std::vector<GroupResult>& results)>;

  // Submits `requests`, whose sinks it sets. `done` is called exactly once, on any thread, maybe
  // before this returns.
  static std::shared_ptr<RequestGroup> Start(Engine& engine, std::vector<Request> requests,
                                             Done done);

  // Ends all requests that have not ended, each within one step; `done` is called then.
  void Cancel() override;
  void Resume() override {}

 private:
  class ElementSink;

  RequestGroup(size_t size, Done done);

  void SubmitAll(Engine& engine, std::vector<Request> requests);
  // Takes the handles of the submitted requests, and cancels them if the group has failed
  // meanwhile.
  void Keep(const std::vector<std::shared_ptr<RequestHandle>>& handles);
  void AppendText(size_t index, std::string_view text);
  void Complete(size_t index, Completion completion);
  void Fail(const absl::Status& status);
  // Takes off `count` of what is awaited; calls `done_` when nothing is left.
  void Release(size_t count);

  absl::Mutex mutex_;
  Done done_ ABSL_GUARDED_BY(mutex_);  // let go of when it is called: it may own what owns this
  std::vector<std::shared_ptr<RequestHandle>> handles_ ABSL_GUARDED_BY(mutex_);
  std::vector<GroupResult> results_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // the first error
  size_t awaited_ ABSL_GUARDED_BY(mutex_);       // results, and one for SubmitAll()
};

}  // namespace evaserve

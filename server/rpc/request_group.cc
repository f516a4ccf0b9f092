#include "server/rpc/request_group.h"

#include <utility>

namespace evaserve {

class RequestGroup::ElementSink : public ResponseSink {
 public:
  ElementSink(std::shared_ptr<RequestGroup> group, size_t index)
      : group_(std::move(group)), index_(index) {}

  bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) override {
    group_->AppendText(index_, text);
    return true;
  }

  void OnDone(Completion completion) override { group_->Complete(index_, std::move(completion)); }

 private:
  const std::shared_ptr<RequestGroup> group_;
  const size_t index_;
};

std::shared_ptr<RequestGroup> RequestGroup::Start(Engine& engine, std::vector<Request> requests,
                                                  Done done) {
  std::shared_ptr<RequestGroup> group(new RequestGroup(requests.size(), std::move(done)));
  group->SubmitAll(engine, std::move(requests));
  return group;
}

RequestGroup::RequestGroup(size_t size, Done done)
    : done_(std::move(done)), results_(size), awaited_(size + 1) {}

void RequestGroup::SubmitAll(Engine& engine, std::vector<Request> requests) {
  const size_t size = requests.size();
  for (size_t i = 0; i < size; ++i) {
    requests[i].sink = std::make_shared<ElementSink>(shared_from_this(), i);
  }
  auto handles = engine.SubmitAll(std::move(requests));
  if (handles.ok()) {
    Keep(*handles);
    return Release(1);
  }
  Fail(handles.status());
  Release(size + 1);
}

void RequestGroup::Keep(const std::vector<std::shared_ptr<RequestHandle>>& handles) {
  bool cancel;
  {
    absl::MutexLock lock(&mutex_);
    cancel = !status_.ok();
    handles_ = handles;
  }
  if (!cancel) return;
  for (const auto& handle : handles) handle->Cancel();
}

void RequestGroup::AppendText(size_t index, std::string_view text) {
  absl::MutexLock lock(&mutex_);
  results_[index].text.append(text);
}

void RequestGroup::Complete(size_t index, Completion completion) {
  const absl::Status status = completion.status;
  {
    absl::MutexLock lock(&mutex_);
    results_[index].completion = std::move(completion);
  }
  if (!status.ok()) Fail(status);
  Release(1);
}

void RequestGroup::Cancel() { Fail(absl::CancelledError("cancelled")); }

void RequestGroup::Fail(const absl::Status& status) {
  std::vector<std::shared_ptr<RequestHandle>> handles;
  {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return;
    status_ = status;
    handles = handles_;
  }
  for (const auto& handle : handles) handle->Cancel();
}

void RequestGroup::Release(size_t count) {
  absl::Status status;
  std::vector<GroupResult> results;
  Done done;
  {
    absl::MutexLock lock(&mutex_);
    awaited_ -= count;
    if (awaited_ > 0) return;
    done = std::exchange(done_, nullptr);
    status = status_;
    results = std::move(results_);
    handles_.clear();
  }
  done(std::move(status), results);
}

}  // namespace evaserve

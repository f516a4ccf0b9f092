#include "server/engine/engine.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/active_request.h"
#include "server/engine/durations.h"
#include "server/engine/mailbox.h"
#include "server/engine/request_check.h"
#include "server/engine/step_loop.h"

namespace evaserve {
namespace {

RequestLimits LimitsOf(const Model& model, const EngineOptions& options) {
  RequestLimits limits = LimitsOf(model);
  limits.max_prompt_tokens = options.max_prompt_tokens;
  limits.max_new_tokens = options.max_new_tokens;
  return limits;
}

class Handle final : public RequestHandle {
 public:
  Handle(RequestId id, int64_t tokens_to_come, int vocab_size, std::shared_ptr<Mailbox> mailbox)
      : id_(id),
        vocab_size_(vocab_size),
        mailbox_(std::move(mailbox)),
        tokens_to_come_(tokens_to_come) {}

  void Cancel() override {
    if (!cancelled_.exchange(true)) mailbox_->Cancel(id_);
  }

  void Resume() override { mailbox_->Resume(id_); }

  absl::Status Append(std::span<const TokenId> tokens) override {
    if (absl::Status status = CheckTokens("prompt", tokens, vocab_size_); !status.ok()) {
      return status;
    }
    absl::MutexLock lock(&mutex_);  // pieces are queued in the order of the calls
    const int64_t num_tokens = std::ssize(tokens);
    if (num_tokens > tokens_to_come_) {
      return absl::InvalidArgumentError(absl::StrCat("prompt has ", num_tokens,
                                                     " more tokens, allowed are ", tokens_to_come_,
                                                     " by what was said at its beginning"));
    }
    tokens_to_come_ -= num_tokens;
    mailbox_->Append({id_, {tokens.begin(), tokens.end()}});
    return absl::OkStatus();
  }

 private:
  const RequestId id_;
  const int vocab_size_;
  const std::shared_ptr<Mailbox> mailbox_;
  std::atomic<bool> cancelled_{false};
  absl::Mutex mutex_;
  int64_t tokens_to_come_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Model> model, const EngineOptions& options, EngineObserver& observer)
      : model_(std::move(model)),
        options_(options),
        limits_(LimitsOf(*model_, options)),
        mailbox_(std::make_shared<Mailbox>(
            Mailbox::Limits{.max_running = std::min(options.max_running, options.max_batch_tokens),
                            .waiting = options.waiting})),
        loop_(*model_, options, observer, *mailbox_),
        thread_([this] { loop_.Run(); }) {
    pthread_setname_np(thread_.native_handle(), "eva-engine");
  }

  ~Impl() {
    mailbox_->Close();
    thread_.join();
  }

  absl::StatusOr<std::vector<std::shared_ptr<RequestHandle>>> SubmitAll(
      std::vector<Request> requests) {
    const TimePoint now = Clock::now();
    std::vector<std::unique_ptr<ActiveRequest>> active;
    std::vector<std::shared_ptr<RequestHandle>> handles;
    for (Request& request : requests) {
      if (absl::Status status = Check(request, now); !status.ok()) return status;
      const RequestId id = next_id_.fetch_add(1, std::memory_order_relaxed);
      const int64_t max_new_tokens = MaxNewTokens(request, limits_);
      handles.push_back(
          std::make_shared<Handle>(id, request.tokens_to_come, limits_.vocab_size, mailbox_));
      active.push_back(
          std::make_unique<ActiveRequest>(id, std::move(request), max_new_tokens, *model_, now));
    }
    if (absl::Status status = mailbox_->Submit(std::move(active)); !status.ok()) return status;
    return handles;
  }

  const Model& model() const { return *model_; }
  const StepLoop& loop() const { return loop_; }
  const EngineOptions& options() const { return options_; }
  Mailbox& mailbox() const { return *mailbox_; }

 private:
  // And shortens its deadline where that is limited.
  absl::Status Check(Request& request, TimePoint now) const {
    if (absl::Status status = CheckRequest(request, limits_); !status.ok()) return status;
    request.deadline = Within(options_.max_request_time, now, request.deadline);
    return CheckDeadline(request.deadline, now);
  }

  const std::unique_ptr<Model> model_;
  const EngineOptions options_;
  const RequestLimits limits_;
  const std::shared_ptr<Mailbox> mailbox_;  // shared with the handles, which may live longer
  StepLoop loop_;
  std::atomic<RequestId> next_id_{1};
  std::thread thread_;
};

Engine::Engine(std::unique_ptr<Model> model, const EngineOptions& options, EngineObserver& observer)
    : impl_(std::make_unique<Impl>(std::move(model), options, observer)) {}

Engine::~Engine() = default;

const ModelInfo& Engine::info() const { return impl_->model().info(); }
const Tokenizer& Engine::tokenizer() const { return impl_->model().tokenizer(); }
const EngineOptions& Engine::options() const { return impl_->options(); }

absl::StatusOr<std::shared_ptr<RequestHandle>> Engine::Submit(Request request) {
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  absl::StatusOr<std::vector<std::shared_ptr<RequestHandle>>> handles =
      impl_->SubmitAll(std::move(requests));
  if (!handles.ok()) return handles.status();
  return std::move(handles->front());
}

absl::StatusOr<std::vector<std::shared_ptr<RequestHandle>>> Engine::SubmitAll(
    std::vector<Request> requests) {
  return impl_->SubmitAll(std::move(requests));
}

void Engine::Drain() { impl_->mailbox().Drain(); }

bool Engine::WaitUntilIdle(TimePoint deadline) { return impl_->mailbox().WaitUntilIdle(deadline); }

std::optional<std::chrono::milliseconds> Engine::step_age() const {
  return impl_->loop().step_age();
}

EngineState Engine::state() const { return impl_->mailbox().state(); }

}  // namespace evaserve

#include "server/rpc/stream_infer_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/call_info.h"
#include "server/rpc/find_model.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/handle_slot.h"
#include "server/rpc/infer_plan.h"
#include "server/rpc/request_group.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

void SetFinal(bool is_final, ModelInferResponse& response) {
  (*response.mutable_parameters())["triton_final_response"].set_bool_param(is_final);
}

// On a stream every generation comes in pieces, and a piece has a batch of 1.
absl::Status CheckForStream(const InferPlan& plan) {
  if (plan.batch() == 1 || plan.tasks.front() != Task::kGenerate || plan.tasks.size() > 1) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("text_input: got shape [", plan.batch(),
                   "], allowed is [1] for text_output alone on a stream"));
}

}  // namespace

// A request on the stream. The sink of its generation if it comes in pieces. What follows the
// constants is guarded by the stream's mutex.
class StreamInferReactor::OpenRequest : public ResponseSink,
                                        public std::enable_shared_from_this<OpenRequest> {
 public:
  explicit OpenRequest(std::shared_ptr<StreamInferReactor> stream)
      : stream_(std::move(stream)),
        scope(std::make_unique<RequestScope>(stream_->log_,
                                             stream_->authorizer_.CallerOf(stream_->context_),
                                             "ModelStreamInfer", MethodKind::kInference)) {}

  // Runs `request`; its end comes through OnEnd(), maybe before this returns.
  void Run(const ModelInferRequest& request);

  bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) override {
    return stream_->OnText(shared_from_this(), text);
  }
  void OnDone(Completion completion) override;

 private:
  absl::Status Begin(const ModelInferRequest& request);
  absl::Status BeginPieces(Engine& engine, InferPlan plan);
  void BeginWhole(Engine& engine, InferPlan plan);

  const std::shared_ptr<StreamInferReactor> stream_;

 public:
  HandleSlot handle;
  ModelInferResponse names;  // model, version and id, which every message has
  bool in_pieces = false;
  bool empty_final_response = false;

  std::unique_ptr<RequestScope> scope;
  std::string text;                        // not yet written
  std::optional<ModelInferResponse> last;  // once it has ended
  absl::Status status;
  bool is_ready = false;    // it is in ready_
  bool is_resting = false;  // its sequence, until Resume()
};

void StreamInferReactor::OpenRequest::Run(const ModelInferRequest& request) {
  names.set_id(request.id());
  names.set_model_name(request.model_name());
  scope->SetId(RequestIdOf(stream_->context_, request.id()));
  if (absl::Status begun = Begin(request); !begun.ok()) {
    stream_->OnEnd(shared_from_this(), std::move(begun), {});
  }
}

absl::Status StreamInferReactor::OpenRequest::Begin(const ModelInferRequest& request) {
  absl::StatusOr<ReadyModel> model =
      FindModel(stream_->models_, scope->caller(), request.model_name(), request.model_version());
  if (!model.ok()) return model.status();
  scope->model = model->name;
  names.set_model_name(model->name);
  names.set_model_version(absl::StrCat(model->version));

  Engine& engine = *model->engine;
  absl::StatusOr<InferPlan> plan =
      PlanInfer(request, engine.info(), engine.tokenizer(), stream_->deadline_);
  if (!plan.ok()) return plan.status();
  if (absl::Status status = CheckForStream(*plan); !status.ok()) return status;
  scope->input_bytes = plan->input_bytes();
  empty_final_response = plan->empty_final_response;
  if (plan->is_one_generation()) return BeginPieces(engine, *std::move(plan));
  BeginWhole(engine, *std::move(plan));
  return absl::OkStatus();
}

absl::Status StreamInferReactor::OpenRequest::BeginPieces(Engine& engine, InferPlan plan) {
  in_pieces = true;
  Request& request = plan.requests.front();
  request.sink = shared_from_this();
  absl::StatusOr<std::shared_ptr<RequestHandle>> submitted = engine.Submit(std::move(request));
  if (!submitted.ok()) return submitted.status();
  handle.Set(*std::move(submitted));
  return absl::OkStatus();
}

void StreamInferReactor::OpenRequest::BeginWhole(Engine& engine, InferPlan plan) {
  std::vector<Request> requests = std::exchange(plan.requests, {});
  handle.Set(RequestGroup::Start(engine, std::move(requests),
                                 [self = shared_from_this(), plan = std::move(plan)](
                                     absl::Status status, const std::vector<GroupResult>& results) {
                                   ModelInferResponse response;
                                   for (const GroupResult& result : results)
                                     self->scope->Add(result.completion);
                                   if (status.ok()) FillOutputs(plan, results, response);
                                   self->stream_->OnEnd(self, std::move(status),
                                                        std::move(response));
                                 }));
}

void StreamInferReactor::OpenRequest::OnDone(Completion completion) {
  ModelInferResponse response;
  scope->Add(completion);
  AddFinishParameters(completion, response);
  stream_->OnEnd(shared_from_this(), std::move(completion.status), std::move(response));
}

StreamInferReactor* StreamInferReactor::Start(grpc::CallbackServerContext& context,
                                              ModelRepository& models, RequestLog& log,
                                              const Authorizer& authorizer) {
  std::shared_ptr<StreamInferReactor> reactor(
      new StreamInferReactor(context, models, log, authorizer));
  absl::MutexLock lock(&reactor->mutex_);
  reactor->self_ = reactor;
  reactor->Advance();
  return reactor.get();
}

StreamInferReactor::StreamInferReactor(grpc::CallbackServerContext& context,
                                       ModelRepository& models, RequestLog& log,
                                       const Authorizer& authorizer)
    : context_(context),
      models_(models),
      log_(log),
      authorizer_(authorizer),
      deadline_(DeadlineOf(context)),
      errors_end_call_(MetadataOf(context, "triton_grpc_error") == "true") {}

void StreamInferReactor::OnReadDone(bool ok) {
  if (ok) Open();
  absl::MutexLock lock(&mutex_);
  is_reading_ = false;
  is_input_over_ |= !ok;
  Advance();
}

void StreamInferReactor::Open() {
  std::shared_ptr<OpenRequest> request;
  {
    absl::MutexLock lock(&mutex_);
    if (failure_) return;
    request = std::make_shared<OpenRequest>(shared_from_this());
    open_.insert(request);
  }
  request->Run(read_);
}

bool StreamInferReactor::OnText(const std::shared_ptr<OpenRequest>& request,
                                std::string_view text) {
  absl::MutexLock lock(&mutex_);
  if (failure_ || text.empty()) return true;
  request->text.append(text);
  if (!std::exchange(request->is_ready, true)) ready_.push_back(request);
  Advance();
  request->is_resting = request->text.size() >= kMaxPendingBytes;
  return !request->is_resting;
}

void StreamInferReactor::OnEnd(const std::shared_ptr<OpenRequest>& request, absl::Status status,
                               ModelInferResponse last) {
  status = TellExpired(std::move(status), deadline_);
  {
    absl::MutexLock lock(&mutex_);
    request->scope->status = status;
    request->status = status;
    request->last = std::move(last);
    if (failure_) {
      Close(request);
    } else if (!std::exchange(request->is_ready, true)) {
      ready_.push_back(request);
    }
  }
  if (errors_end_call_ && !status.ok()) FailCall(status);
  absl::MutexLock lock(&mutex_);
  Advance();
}

void StreamInferReactor::FailCall(const absl::Status& status) {
  std::vector<std::shared_ptr<OpenRequest>> cancelled;
  {
    absl::MutexLock lock(&mutex_);
    if (failure_ || is_ended_) return;
    failure_ = status;
    ready_.clear();
    for (const auto& request : std::set(open_)) {
      if (request->last) {
        Close(request);
      } else {
        cancelled.push_back(request);
      }
    }
  }
  for (const auto& request : cancelled) request->handle.Cancel();
}

void StreamInferReactor::OnWriteDone(bool ok) {
  std::shared_ptr<OpenRequest> resumed;
  {
    absl::MutexLock lock(&mutex_);
    const std::shared_ptr<OpenRequest> request = std::exchange(being_written_, nullptr);
    if (request->last && !request->is_ready) Close(request);
    if (request->is_resting && request->text.size() <= kMaxPendingBytes / 2) {
      request->is_resting = false;
      resumed = request;
    }
    Advance();
  }
  if (resumed != nullptr) resumed->handle.Resume();
  if (!ok) OnCancel();
}

void StreamInferReactor::OnCancel() {
  FailCall(TellExpired(absl::CancelledError("the client has gone"), deadline_));
  absl::MutexLock lock(&mutex_);
  Advance();
}

void StreamInferReactor::OnDone() {
  std::shared_ptr<StreamInferReactor> self;  // may be the last, so it goes after the lock
  absl::MutexLock lock(&mutex_);
  self = std::move(self_);
}

void StreamInferReactor::Advance() {
  if (is_ended_) return;
  ReadMore();
  if (being_written_ != nullptr) return;
  if (failure_) {
    if (open_.empty()) End(*failure_);
  } else if (!ready_.empty()) {
    if (!MayWrite()) return;
    being_written_ = std::move(ready_.front());
    ready_.pop_front();
    TakeMessage(being_written_);
    StartWrite(&writing_);
  } else if (is_input_over_ && open_.empty()) {
    End(absl::OkStatus());
  }
}

bool StreamInferReactor::MayWrite() {
  // An end is not kept waiting.
  return ready_.front()->last ||
         pacer_.TryStart([self = shared_from_this()] { self->OnWriteMayStart(); });
}

void StreamInferReactor::OnWriteMayStart() {
  absl::MutexLock lock(&mutex_);
  pacer_.OnRetry();
  Advance();
}

void StreamInferReactor::ReadMore() {
  if (is_reading_ || is_input_over_ || failure_ || open_.size() >= kMaxOpen) return;
  is_reading_ = true;
  StartRead(&read_);
}

void StreamInferReactor::TakeMessage(const std::shared_ptr<OpenRequest>& request) {
  writing_.Clear();
  request->is_ready = false;
  ModelInferResponse& response = *writing_.mutable_infer_response();
  response = request->names;
  const bool has_ended = request->last.has_value();
  const bool final_is_separate =
      request->status.ok() && request->empty_final_response && !request->text.empty();
  if (!has_ended || final_is_separate) {
    AddTextOutput(std::exchange(request->text, {}), response);
    SetFinal(false, response);
    if (!has_ended) return;
    request->is_ready = true;
    ready_.push_back(request);
    return;
  }
  FillLast(*request, writing_);
}

void StreamInferReactor::FillLast(const OpenRequest& request, ModelStreamInferResponse& message) {
  ModelInferResponse& response = *message.mutable_infer_response();
  SetFinal(true, response);
  if (!request.status.ok()) {
    message.set_error_message(std::string(request.status.message()));
    (*response.mutable_parameters())["error_code"].set_string_param(
        absl::StatusCodeToString(request.status.code()));
    return;
  }
  response.MergeFrom(*request.last);
  if (request.in_pieces && !request.empty_final_response) AddTextOutput(request.text, response);
}

void StreamInferReactor::Close(const std::shared_ptr<OpenRequest>& request) {
  request->scope.reset();
  open_.erase(request);
}

void StreamInferReactor::End(const absl::Status& status) {
  is_ended_ = true;
  AddRetryPushback(status, context_);
  Finish(ToGrpcStatus(status));
}

}  // namespace evaserve

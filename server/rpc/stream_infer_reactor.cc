#include "server/rpc/stream_infer_reactor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/call_info.h"
#include "server/rpc/find_model.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/infer_plan.h"
#include "server/rpc/request_group.h"
#include "server/rpc/tensor_plan.h"

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

// Cancels a request to a model of tensors, as long as its engine lives.
class TensorHandle final : public RequestHandle {
 public:
  TensorHandle(std::weak_ptr<TensorEngine> engine, uint64_t id)
      : engine_(std::move(engine)), id_(id) {}

  void Cancel() override {
    if (const std::shared_ptr<TensorEngine> engine = engine_.lock()) engine->Cancel(id_);
  }
  void Resume() override {}

 private:
  const std::weak_ptr<TensorEngine> engine_;
  const uint64_t id_;
};

}  // namespace

// A request on the stream. The sink of its generation if it comes in pieces. `text_` and what
// follows it are guarded by the stream's mutex.
class StreamInferReactor::OpenRequest : public StreamAnswer<ModelStreamInferResponse>,
                                        public ResponseSink,
                                        public std::enable_shared_from_this<OpenRequest> {
 public:
  OpenRequest(std::shared_ptr<StreamInferReactor> stream, const std::string& id)
      : stream_(std::move(stream)) {
    scope = std::make_unique<RequestScope>(stream_->log_,
                                           stream_->authorizer_.CallerOf(stream_->context()),
                                           "ModelStreamInfer", MethodKind::kInference);
    scope->SetId(RequestIdOf(stream_->context(), id));
  }

  // Runs `request`; its end may come before this returns.
  void Run(const ModelInferRequest& request);

  bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) override;
  void OnDone(Completion completion) override;

 private:
  bool TakeMessage(ModelStreamInferResponse& message) override;
  size_t pending_bytes() const override { return text_.size(); }

  absl::Status Begin(const ModelInferRequest& request);
  absl::Status BeginTensors(const std::shared_ptr<TensorEngine>& engine,
                            const ModelInferRequest& request);
  absl::Status BeginPieces(Engine& engine, InferPlan plan);
  void BeginWhole(Engine& engine, InferPlan plan);
  void End(absl::Status status, ModelInferResponse last);
  void FillLast(ModelStreamInferResponse& message) const;

  const std::shared_ptr<StreamInferReactor> stream_;
  ModelInferResponse names_;  // model, version and id, which every message has
  bool in_pieces_ = false;
  bool empty_final_response_ = false;

  // Of a request to a model of tensors.
  struct Tensors {
    ModelInferRequest request;
    TensorPlan plan;
  };
  Tensors tensors_;

  std::string text_;         // not yet written
  ModelInferResponse last_;  // once it has ended
  absl::Status status_;
};

void StreamInferReactor::OpenRequest::Run(const ModelInferRequest& request) {
  names_.set_id(request.id());
  names_.set_model_name(request.model_name());
  if (absl::Status begun = Begin(request); !begun.ok()) End(std::move(begun), {});
}

absl::Status StreamInferReactor::OpenRequest::Begin(const ModelInferRequest& request) {
  absl::StatusOr<ReadyModel> model =
      FindModel(stream_->models_, *scope, request.model_name(), request.model_version());
  if (!model.ok()) return model.status();
  names_.set_model_name(model->name);
  names_.set_model_version(absl::StrCat(model->version));

  if (model->tensors != nullptr) return BeginTensors(model->tensors, request);
  Engine& engine = *model->engine;
  absl::StatusOr<InferPlan> plan =
      PlanInfer(request, engine.info(), engine.tokenizer(), stream_->deadline());
  if (!plan.ok()) return plan.status();
  if (absl::Status status = CheckForStream(*plan); !status.ok()) return status;
  scope->input_bytes = plan->input_bytes();
  empty_final_response_ = plan->empty_final_response;
  if (plan->is_one_generation()) return BeginPieces(engine, *std::move(plan));
  BeginWhole(engine, *std::move(plan));
  return absl::OkStatus();
}

absl::Status StreamInferReactor::OpenRequest::BeginTensors(
    const std::shared_ptr<TensorEngine>& engine, const ModelInferRequest& request) {
  tensors_.request = request;  // the next one takes its place soon
  absl::StatusOr<TensorPlan> plan =
      PlanTensors(tensors_.request, engine->info(), stream_->deadline());
  if (!plan.ok()) return plan.status();
  tensors_.plan = *std::move(plan);
  scope->input_bytes = tensors_.plan.input_bytes();
  TensorRequest work = MakeRequest(tensors_.plan);
  work.done = [self = shared_from_this(), &info = engine->info()](Completion completion,
                                                                  TensorModel::Outputs outputs) {
    ModelInferResponse response;
    self->scope->Add(completion);
    if (completion.status.ok()) {
      FillTensors(self->tensors_.plan, info, std::move(outputs), response);
    }
    self->End(std::move(completion.status), std::move(response));
  };
  const absl::StatusOr<uint64_t> id = engine->Submit(std::move(work));
  if (!id.ok()) return id.status();
  handle.Set(std::make_shared<TensorHandle>(engine, *id));
  return absl::OkStatus();
}

absl::Status StreamInferReactor::OpenRequest::BeginPieces(Engine& engine, InferPlan plan) {
  in_pieces_ = true;
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
                                   self->End(std::move(status), std::move(response));
                                 }));
}

bool StreamInferReactor::OpenRequest::OnTokens(std::string_view text,
                                               std::span<const GeneratedToken> /*tokens*/) {
  return stream_->Deliver(shared_from_this(), [&] {
    text_.append(text);
    return !text.empty();
  });
}

void StreamInferReactor::OpenRequest::OnDone(Completion completion) {
  ModelInferResponse response;
  scope->Add(completion);
  AddFinishParameters(completion, response);
  End(std::move(completion.status), std::move(response));
}

void StreamInferReactor::OpenRequest::End(absl::Status status, ModelInferResponse last) {
  stream_->DeliverEnd(shared_from_this(), std::move(status), [&](const absl::Status& told) {
    status_ = told;
    last_ = std::move(last);
  });
}

bool StreamInferReactor::OpenRequest::TakeMessage(ModelStreamInferResponse& message) {
  ModelInferResponse& response = *message.mutable_infer_response();
  response = names_;
  const bool final_is_separate = status_.ok() && empty_final_response_ && !text_.empty();
  if (!has_ended() || final_is_separate) {
    AddTextOutput(std::exchange(text_, {}), response);
    SetFinal(false, response);
    return has_ended();
  }
  FillLast(message);
  return false;
}

void StreamInferReactor::OpenRequest::FillLast(ModelStreamInferResponse& message) const {
  ModelInferResponse& response = *message.mutable_infer_response();
  SetFinal(true, response);
  if (!status_.ok()) {
    message.set_error_message(MessageOf(status_));
    (*response.mutable_parameters())["error_code"].set_string_param(
        absl::StatusCodeToString(status_.code()));
    return;
  }
  response.MergeFrom(last_);
  if (in_pieces_ && !empty_final_response_) AddTextOutput(text_, response);
}

StreamInferReactor* StreamInferReactor::Start(grpc::CallbackServerContext& context,
                                              ModelRepository& models, RequestLog& log,
                                              const Authorizer& authorizer) {
  std::shared_ptr<StreamInferReactor> reactor(
      new StreamInferReactor(context, models, log, authorizer));
  reactor->Run();
  return reactor.get();
}

StreamInferReactor::StreamInferReactor(grpc::CallbackServerContext& context,
                                       ModelRepository& models, RequestLog& log,
                                       const Authorizer& authorizer)
    : AnswerStream(context, MetadataOf(context, "triton_grpc_error") == "true"),
      models_(models),
      log_(log),
      authorizer_(authorizer) {}

void StreamInferReactor::OnRequest(const ModelInferRequest& request) {
  auto answer = std::make_shared<OpenRequest>(
      std::static_pointer_cast<StreamInferReactor>(shared_from_this()), request.id());
  if (Open(answer)) answer->Run(request);
}

}  // namespace evaserve

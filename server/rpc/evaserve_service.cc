#include "server/rpc/evaserve_service.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/dtype.h"
#include "server/rpc/call_info.h"
#include "server/rpc/classify.h"
#include "server/rpc/evaserve_requests.h"
#include "server/rpc/find_model.h"
#include "server/rpc/generate_reactor.h"
#include "server/rpc/generate_stream_reactor.h"
#include "server/rpc/quoted.h"
#include "server/rpc/unary_call.h"

namespace evaserve {
namespace {

std::unique_ptr<RequestScope> OpenScope(RequestLog& log, Caller caller, const char* method,
                                        const grpc::CallbackServerContext& context,
                                        const std::string& id, size_t input_bytes) {
  auto scope =
      std::make_unique<RequestScope>(log, std::move(caller), method, MethodKind::kInference);
  scope->SetId(RequestIdOf(context, id));
  scope->input_bytes = static_cast<int64_t>(input_bytes);
  return scope;
}

absl::StatusOr<GenerateReactor::Work> PrepareGenerate(const ModelRepository& models,
                                                      const v1::GenerateRequest& from,
                                                      RequestScope& scope) {
  absl::StatusOr<ReadyModel> model = FindTextModel(models, scope, from.model());
  if (!model.ok()) return model.status();
  absl::StatusOr<Request> request =
      MakeRequest(from, model->engine->info(), model->engine->tokenizer());
  if (!request.ok()) return request.status();
  request->id = scope.id();
  return GenerateReactor::Work{model->engine, *std::move(request), from.logprobs()};
}

// Of Score and Embed: one request, whose completion `answer` turns into the response.
template <typename FromWire, typename Answer>
absl::StatusOr<UnaryCall::Work> PrepareOne(const ModelRepository& models, const FromWire& from,
                                           TimePoint deadline, RequestScope& scope, Answer answer) {
  absl::StatusOr<ReadyModel> model = FindTextModel(models, scope, from.model());
  if (!model.ok()) return model.status();
  absl::StatusOr<Request> request = MakeRequest(from, model->engine->tokenizer());
  if (!request.ok()) return request.status();
  request->id = scope.id();
  request->deadline = deadline;

  UnaryCall::Work work{.engine = model->engine};
  work.requests.push_back(*std::move(request));
  work.answer = [answer = std::move(answer)](const std::vector<GroupResult>& results) {
    answer(results.front().completion);
  };
  return work;
}

void FillInfo(const ModelInfo& info, v1::Model& model) {
  model.set_architecture(info.architecture);
  model.set_dtype(std::string(Name(info.dtype)));
  model.set_parameters(static_cast<uint64_t>(info.num_parameters));
  model.set_max_seq_len(static_cast<uint64_t>(info.max_seq_len));
  model.set_window(static_cast<uint32_t>(info.window));
  model.set_chunk(static_cast<uint32_t>(info.chunk));
  model.set_embedding_size(static_cast<uint32_t>(info.hidden_size));
}

void FillInfo(const TensorModelInfo& info, v1::Model& model) {
  model.set_architecture(info.architecture);
  model.set_parameters(static_cast<uint64_t>(info.num_parameters));
}

void FillModels(const ModelRepository& models, const Caller& caller,
                v1::ListModelsResponse& response) {
  for (const ModelStatus& status : models.List()) {
    if (!caller.MayUse(status.name)) continue;
    v1::Model& model = *response.add_models();
    model.set_name(status.name);
    model.set_version(absl::StrCat(status.version));
    model.set_state(Name(status.state));
    model.set_reason(AsUtf8(status.reason));
    const absl::StatusOr<ReadyModel> ready = models.Find(status.name, status.version);
    if (!ready.ok()) continue;
    if (ready->engine != nullptr) {
      FillInfo(ready->engine->info(), model);
      model.set_token(ready->engine->tokenizer().ByteToken(0) ? "byte" : "word");
    }
    if (ready->tensors != nullptr) FillInfo(ready->tensors->info(), model);
  }
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* EvaserveService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  auto scope = OpenScope(log_, authorizer_.CallerOf(*context), "Generate", *context,
                         request->request_id(), static_cast<size_t>(InputBytes(*request)));
  auto work = PrepareGenerate(models_, *request, *scope);
  return GenerateReactor::Start(*context, std::move(scope), std::move(work));
}

grpc::ServerBidiReactor<v1::GenerateStreamRequest, v1::GenerateStreamResponse>*
EvaserveService::GenerateStream(grpc::CallbackServerContext* context) {
  return GenerateStreamReactor::Start(*context, models_, log_, authorizer_);
}

grpc::ServerUnaryReactor* EvaserveService::Score(grpc::CallbackServerContext* context,
                                                 const v1::ScoreRequest* request,
                                                 v1::ScoreResponse* response) {
  auto scope = OpenScope(log_, authorizer_.CallerOf(*context), "Score", *context,
                         request->request_id(), request->text().size());
  auto work = PrepareOne(models_, *request, DeadlineOf(*context), *scope,
                         [request, response](const Completion& completion) {
                           FillScore(completion, *request, *response);
                         });
  return UnaryCall::Start(*context, std::move(scope), std::move(work));
}

grpc::ServerUnaryReactor* EvaserveService::Embed(grpc::CallbackServerContext* context,
                                                 const v1::EmbedRequest* request,
                                                 v1::EmbedResponse* response) {
  auto scope = OpenScope(log_, authorizer_.CallerOf(*context), "Embed", *context,
                         request->request_id(), request->text().size());
  auto work = PrepareOne(
      models_, *request, DeadlineOf(*context), *scope,
      [response](const Completion& completion) { FillEmbedding(completion, *response); });
  return UnaryCall::Start(*context, std::move(scope), std::move(work));
}

grpc::ServerUnaryReactor* EvaserveService::Classify(grpc::CallbackServerContext* context,
                                                    const v1::ClassifyRequest* request,
                                                    v1::ClassifyResponse* response) {
  auto scope = OpenScope(log_, authorizer_.CallerOf(*context), "Classify", *context,
                         request->request_id(), request->image().size());
  const absl::StatusOr<ReadyModel> model = FindModel(models_, *scope, request->model());
  if (!model.ok()) return TensorCall::Start(*context, std::move(scope), model.status());
  auto work = PrepareClassify(*model, *request, *response);
  return TensorCall::Start(*context, std::move(scope), std::move(work));
}

grpc::ServerUnaryReactor* EvaserveService::ListModels(grpc::CallbackServerContext* context,
                                                      const v1::ListModelsRequest* request,
                                                      v1::ListModelsResponse* response) {
  RequestScope scope(log_, authorizer_.CallerOf(*context), "ListModels", MethodKind::kQuestion);
  scope.SetId(RequestIdOf(*context, ""));
  FillModels(models_, scope.caller(), *response);
  scope.status = absl::OkStatus();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace evaserve

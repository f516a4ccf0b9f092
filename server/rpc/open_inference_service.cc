#include "server/rpc/open_inference_service.h"

#include <initializer_list>
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/rpc/call_info.h"
#include "server/rpc/find_model.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/infer_plan.h"
#include "server/rpc/stream_infer_reactor.h"
#include "server/rpc/unary_call.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelMetadataResponse;

void FillTensor(const char* name, const char* datatype, std::initializer_list<int64_t> shape,
                ModelMetadataResponse::TensorMetadata& tensor) {
  tensor.set_name(name);
  tensor.set_datatype(datatype);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
}

void FillMetadata(const FoundModel& model, ModelMetadataResponse& response) {
  const ModelInfo& info = model.engine->info();
  response.set_name(model.name);
  response.add_versions(std::string(kModelVersion));
  response.set_platform(absl::StrCat(info.architecture, "_safetensors"));
  FillTensor(kTextInput, "BYTES", {-1}, *response.add_inputs());
  FillTensor("text_output", "BYTES", {-1}, *response.add_outputs());
  FillTensor("log_likelihood", "FP64", {-1}, *response.add_outputs());
  FillTensor("bits_per_byte", "FP64", {-1}, *response.add_outputs());
  FillTensor("embedding", "FP32", {-1, info.hidden_size}, *response.add_outputs());

  auto& properties = *response.mutable_properties();
  properties["dtype"] = std::string(Name(info.dtype));
  properties["parameters"] = absl::StrCat(info.num_parameters);
  properties["max_seq_len"] = absl::StrCat(info.max_seq_len);
  properties["window"] = absl::StrCat(info.window);
  properties["chunk"] = absl::StrCat(info.chunk);
}

absl::StatusOr<UnaryCall::Work> PrepareInfer(const ModelRepository& models,
                                             const ModelInferRequest& request, TimePoint deadline,
                                             ModelInferResponse& response, RequestScope& scope) {
  absl::StatusOr<FoundModel> model =
      FindModel(models, request.model_name(), request.model_version());
  if (!model.ok()) return model.status();
  scope.model = model->name;
  absl::StatusOr<InferPlan> plan =
      PlanInfer(request, model->engine->info(), model->engine->tokenizer(), deadline);
  if (!plan.ok()) return plan.status();
  scope.input_bytes = plan->input_bytes();

  response.set_model_name(model->name);
  response.set_model_version(kModelVersion);
  response.set_id(request.id());
  UnaryCall::Work work{.engine = model->engine, .requests = std::move(plan->requests)};
  for (Request& one : work.requests) one.id = scope.id();
  work.answer = [plan = *std::move(plan), &response](const std::vector<GroupResult>& results) {
    FillOutputs(plan, results, response);
  };
  return work;
}

}  // namespace

grpc::ServerUnaryReactor* OpenInferenceService::Answer(grpc::CallbackServerContext& context,
                                                       const char* method,
                                                       const absl::Status& status) {
  RequestScope scope(log_, method, MethodKind::kQuestion);
  scope.SetId(RequestIdOf(context, ""));
  scope.status = status;
  grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerLive(
    grpc::CallbackServerContext* context, const inference::ServerLiveRequest* request,
    inference::ServerLiveResponse* response) {
  response->set_live(true);
  return Answer(*context, "ServerLive", absl::OkStatus());
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerReady(
    grpc::CallbackServerContext* context, const inference::ServerReadyRequest* request,
    inference::ServerReadyResponse* response) {
  response->set_ready(state_.Check().ok());
  return Answer(*context, "ServerReady", absl::OkStatus());
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelReady(
    grpc::CallbackServerContext* context, const inference::ModelReadyRequest* request,
    inference::ModelReadyResponse* response) {
  const absl::Status found = FindModel(models_, request->name(), request->version()).status();
  response->set_ready(found.ok() && state_.Check().ok());
  // "No" is an answer, also for a model that does not exist, as Triton's clients expect.
  const bool is_bad_question = absl::IsInvalidArgument(found);
  return Answer(*context, "ModelReady", is_bad_question ? found : absl::OkStatus());
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerMetadata(
    grpc::CallbackServerContext* context, const inference::ServerMetadataRequest* request,
    inference::ServerMetadataResponse* response) {
  response->set_name("evaserve");
  response->set_version(server_version_);
  response->add_extensions("binary_tensor_data");
  response->add_extensions("parameters");
  return Answer(*context, "ServerMetadata", absl::OkStatus());
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelMetadata(
    grpc::CallbackServerContext* context, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  const absl::StatusOr<FoundModel> model = FindModel(models_, request->name(), request->version());
  if (model.ok()) FillMetadata(*model, *response);
  return Answer(*context, "ModelMetadata", model.status());
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelInfer(grpc::CallbackServerContext* context,
                                                           const ModelInferRequest* request,
                                                           ModelInferResponse* response) {
  auto scope = std::make_unique<RequestScope>(log_, "ModelInfer", MethodKind::kInference);
  scope->SetId(RequestIdOf(*context, request->id()));
  auto work = PrepareInfer(models_, *request, DeadlineOf(*context), *response, *scope);
  return UnaryCall::Start(*context, std::move(scope), std::move(work));
}

grpc::ServerBidiReactor<ModelInferRequest, inference::ModelStreamInferResponse>*
OpenInferenceService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return StreamInferReactor::Start(*context, models_, log_);
}

}  // namespace evaserve

#include "server/rpc/open_inference_service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/io/json_file.h"
#include "server/rpc/call_info.h"
#include "server/rpc/find_model.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/infer_plan.h"
#include "server/rpc/log_settings.h"
#include "server/rpc/model_answers.h"
#include "server/rpc/quoted.h"
#include "server/rpc/stream_infer_reactor.h"
#include "server/rpc/tensor_call.h"
#include "server/rpc/tensor_plan.h"
#include "server/rpc/unary_call.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

constexpr char kNoTracing[] = "there are no trace files here; request ids are in the log";
constexpr char kNoSharedMemory[] = "tensors come in messages here, not in shared memory";

// Keys of serving.json that a load asks for instead of the file's.
absl::StatusOr<nlohmann::json> ReadLoadParameters(
    const inference::RepositoryModelLoadRequest& request) {
  nlohmann::json changes = nlohmann::json::object();
  for (const auto& [name, value] : request.parameters()) {
    if (absl::StartsWith(name, "file:")) {
      return absl::UnimplementedError(
          absl::StrCat("parameters: got '", Quoted(name),
                       "', but files are read from the repository only, not from requests"));
    }
    if (name != "config") {
      return absl::InvalidArgumentError(
          absl::StrCat("parameters: got '", Quoted(name), "', allowed is config"));
    }
    absl::StatusOr<nlohmann::json> json = ParseJsonObject(value.string_param(), "config");
    if (!json.ok()) return json.status();
    changes = *std::move(json);
  }
  return changes;
}

// Whether models that only others need go too changes nothing: none needs another.
absl::Status CheckUnloadParameters(const inference::RepositoryModelUnloadRequest& request) {
  for (const auto& [name, value] : request.parameters()) {
    if (name == "unload_dependents") continue;
    return absl::InvalidArgumentError(
        absl::StrCat("parameters: got '", Quoted(name), "', allowed is unload_dependents"));
  }
  return absl::OkStatus();
}

absl::Status CheckRepositoryName(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("repository_name: got '", Quoted(name),
                                                 "', allowed is nothing: there is only one"));
}

// The model that a request to load or unload names, in either field.
template <typename RepositoryRequest>
absl::StatusOr<std::string> ModelOf(const RepositoryRequest& request) {
  if (request.model_name().empty()) return request.repository_name();
  if (absl::Status status = CheckRepositoryName(request.repository_name()); !status.ok()) {
    return status;
  }
  return request.model_name();
}

// A model that `caller` has asked for.
struct AskedFor {
  std::string model;
  Caller caller;
};

// `status` of a load. If there is no such model, with the names of those that the caller may use.
absl::Status WithNames(const absl::Status& status, const AskedFor& asked,
                       const RepositoryControl& control) {
  if (!absl::IsNotFound(status)) return status;
  std::vector<std::string> names;
  for (const ModelStatus& known : control.Index()) {
    if (known.name == asked.model) return status;  // a file of it is missing
    if (asked.caller.MayUse(known.name)) names.push_back(known.name);
  }
  names.erase(std::unique(names.begin(), names.end()), names.end());  // one for all versions
  return absl::NotFoundError(absl::StrCat(std::string(status.message()), "; ", ThereAre(names)));
}

absl::StatusOr<TensorCall::Work> PrepareTensors(std::shared_ptr<TensorEngine> engine,
                                                const ModelInferRequest& request,
                                                ModelInferResponse& response, RequestScope& scope) {
  absl::StatusOr<TensorPlan> read = PlanTensors(request, engine->info(), TimePoint::max());
  if (!read.ok()) return read.status();
  const auto plan = std::make_shared<const TensorPlan>(*std::move(read));
  scope.input_bytes = plan->input_bytes();
  TensorCall::Work work{.engine = std::move(engine), .request = MakeRequest(*plan)};
  work.answer = [plan, &response, &info = work.engine->info()](const Completion&,
                                                               TensorModel::Outputs outputs) {
    FillTensors(*plan, info, std::move(outputs), response);
  };
  return work;
}

absl::StatusOr<UnaryCall::Work> PrepareInfer(const std::shared_ptr<Engine>& engine,
                                             const ModelInferRequest& request, TimePoint deadline,
                                             ModelInferResponse& response, RequestScope& scope) {
  absl::StatusOr<InferPlan> plan =
      PlanInfer(request, engine->info(), engine->tokenizer(), deadline);
  if (!plan.ok()) return plan.status();
  scope.input_bytes = plan->input_bytes();

  UnaryCall::Work work{.engine = engine, .requests = std::move(plan->requests)};
  for (Request& one : work.requests) one.id = scope.id();
  work.answer = [plan = *std::move(plan), &response](const std::vector<GroupResult>& results) {
    FillOutputs(plan, results, response);
  };
  return work;
}

}  // namespace

grpc::ServerUnaryReactor* OpenInferenceService::Answer(grpc::CallbackServerContext& context,
                                                       const char* method,
                                                       const absl::Status& status,
                                                       const std::string& model) {
  RequestScope scope(log_, authorizer_.CallerOf(context), method, MethodKind::kQuestion);
  scope.SetId(RequestIdOf(context, ""));
  if (models_.Knows(model)) scope.model = model;
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
  response->set_ready(state_.CheckReady().ok());
  return Answer(*context, "ServerReady", absl::OkStatus());
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelReady(
    grpc::CallbackServerContext* context, const inference::ModelReadyRequest* request,
    inference::ModelReadyResponse* response) {
  const absl::Status found =
      FindModel(models_, authorizer_.CallerOf(*context), request->name(), request->version())
          .status();
  response->set_ready(found.ok() && state_.Check().ok());
  // "No" is an answer, also for a model that does not exist, as Triton's clients expect.
  const bool is_answer = absl::IsNotFound(found) || absl::IsUnavailable(found);
  return Answer(*context, "ModelReady", is_answer ? absl::OkStatus() : found, request->name());
}

grpc::ServerUnaryReactor* OpenInferenceService::ServerMetadata(
    grpc::CallbackServerContext* context, const inference::ServerMetadataRequest* request,
    inference::ServerMetadataResponse* response) {
  response->set_name("evaserve");
  response->set_version(server_version_);
  response->add_extensions("binary_tensor_data");
  for (const char* extension :
       {"classification", "parameters", "model_repository", "model_configuration", "statistics",
        "schedule_policy", "logging"}) {
    response->add_extensions(extension);
  }
  return Answer(*context, "ServerMetadata", absl::OkStatus());
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelMetadata(
    grpc::CallbackServerContext* context, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  const absl::StatusOr<ReadyModel> model =
      FindModel(models_, authorizer_.CallerOf(*context), request->name(), request->version());
  if (model.ok()) FillMetadata(models_, *model, *response);
  return Answer(*context, "ModelMetadata", model.status(), request->name());
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelInfer(grpc::CallbackServerContext* context,
                                                           const ModelInferRequest* request,
                                                           ModelInferResponse* response) {
  auto scope = std::make_unique<RequestScope>(log_, authorizer_.CallerOf(*context), "ModelInfer",
                                              MethodKind::kInference);
  scope->SetId(RequestIdOf(*context, request->id()));
  absl::StatusOr<ReadyModel> model =
      FindModel(models_, *scope, request->model_name(), request->model_version());
  if (!model.ok()) return UnaryCall::Start(*context, std::move(scope), model.status());
  response->set_model_name(model->name);
  response->set_model_version(absl::StrCat(model->version));
  response->set_id(request->id());
  if (model->tensors != nullptr) {
    auto work = PrepareTensors(std::move(model->tensors), *request, *response, *scope);
    return TensorCall::Start(*context, std::move(scope), std::move(work));
  }
  auto work = PrepareInfer(model->engine, *request, DeadlineOf(*context), *response, *scope);
  return UnaryCall::Start(*context, std::move(scope), std::move(work));
}

grpc::ServerBidiReactor<ModelInferRequest, inference::ModelStreamInferResponse>*
OpenInferenceService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return StreamInferReactor::Start(*context, models_, log_, authorizer_);
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelConfig(
    grpc::CallbackServerContext* context, const inference::ModelConfigRequest* request,
    inference::ModelConfigResponse* response) {
  const absl::StatusOr<ReadyModel> model =
      FindModel(models_, authorizer_.CallerOf(*context), request->name(), request->version());
  if (model.ok()) FillConfig(*model, *response->mutable_config());
  return Answer(*context, "ModelConfig", model.status(), request->name());
}

grpc::ServerUnaryReactor* OpenInferenceService::ModelStatistics(
    grpc::CallbackServerContext* context, const inference::ModelStatisticsRequest* request,
    inference::ModelStatisticsResponse* response) {
  const Caller caller = authorizer_.CallerOf(*context);
  if (!request->name().empty()) {
    absl::Status known = FindModel(models_, caller, request->name(), request->version()).status();
    if (!known.ok()) return Answer(*context, "ModelStatistics", known, request->name());
  }
  for (const ReadyModel& model : models_.Ready()) {
    const bool is_asked =
        (request->name().empty() || request->name() == model.name) &&
        (request->version().empty() || request->version() == absl::StrCat(model.version));
    if (!is_asked || !caller.MayUse(model.name)) continue;
    FillStatistics(model, statistics_.Of(model.name, model.version), *response->add_model_stats());
  }
  return Answer(*context, "ModelStatistics", absl::OkStatus(), request->name());
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryIndex(
    grpc::CallbackServerContext* context, const inference::RepositoryIndexRequest* request,
    inference::RepositoryIndexResponse* response) {
  const absl::Status status = CheckRepositoryName(request->repository_name());
  if (!status.ok()) return Answer(*context, "RepositoryIndex", status);
  const Caller caller = authorizer_.CallerOf(*context);
  for (const ModelStatus& model : control_.Index()) {
    if (request->ready() && model.state != ModelState::kReady) continue;
    if (!caller.MayUse(model.name)) continue;
    auto& entry = *response->add_models();
    entry.set_name(model.name);
    if (model.version > 0) entry.set_version(absl::StrCat(model.version));
    entry.set_state(Name(model.state));
    entry.set_reason(AsUtf8(model.reason));
  }
  return Answer(*context, "RepositoryIndex", absl::OkStatus());
}

grpc::ServerUnaryReactor* OpenInferenceService::AnswerLater(
    grpc::CallbackServerContext& context, const char* method, const std::string& model,
    absl::FunctionRef<void(const RepositoryControl::Done& done)> begin) {
  auto scope = std::make_shared<RequestScope>(log_, authorizer_.CallerOf(context), method,
                                              MethodKind::kInference);
  scope->SetId(RequestIdOf(context, ""));
  grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
  begin([this, scope, model, reactor](const absl::Status& status) {
    if (models_.Knows(model)) scope->model = model;
    scope->status = status;
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelLoad(
    grpc::CallbackServerContext* context, const inference::RepositoryModelLoadRequest* request,
    inference::RepositoryModelLoadResponse* response) {
  const absl::StatusOr<std::string> model = ModelOf(*request);
  const absl::StatusOr<nlohmann::json> changes = ReadLoadParameters(*request);
  return AnswerLater(*context, "RepositoryModelLoad", model.value_or(""),
                     [&](const RepositoryControl::Done& done) {
                       if (!model.ok()) return done(model.status());
                       if (!changes.ok()) return done(changes.status());
                       const AskedFor asked{*model, authorizer_.CallerOf(*context)};
                       control_.Load(*model, *changes,
                                     [this, asked, done](const absl::Status& status) {
                                       done(WithNames(status, asked, control_));
                                     });
                     });
}

grpc::ServerUnaryReactor* OpenInferenceService::RepositoryModelUnload(
    grpc::CallbackServerContext* context, const inference::RepositoryModelUnloadRequest* request,
    inference::RepositoryModelUnloadResponse* response) {
  const absl::StatusOr<std::string> model = ModelOf(*request);
  const absl::Status parameters = CheckUnloadParameters(*request);
  return AnswerLater(*context, "RepositoryModelUnload", model.value_or(""),
                     [&](const RepositoryControl::Done& done) {
                       if (!model.ok()) return done(model.status());
                       if (!parameters.ok()) return done(parameters);
                       control_.Unload(*model, done);
                     });
}

grpc::ServerUnaryReactor* OpenInferenceService::LogSettings(
    grpc::CallbackServerContext* context, const inference::LogSettingsRequest* request,
    inference::LogSettingsResponse* response) {
  const absl::Status status = ApplyLogSettings(*request);
  if (status.ok()) FillLogSettings(*response);
  return Answer(*context, "LogSettings", status);
}

grpc::ServerUnaryReactor* OpenInferenceService::TraceSetting(
    grpc::CallbackServerContext* context, const inference::TraceSettingRequest* request,
    inference::TraceSettingResponse* response) {
  return Answer(*context, "TraceSetting", absl::UnimplementedError(kNoTracing));
}

grpc::ServerUnaryReactor* OpenInferenceService::SystemSharedMemoryStatus(
    grpc::CallbackServerContext* context, const inference::SystemSharedMemoryStatusRequest* request,
    inference::SystemSharedMemoryStatusResponse* response) {
  return Answer(*context, "SystemSharedMemoryStatus", absl::UnimplementedError(kNoSharedMemory));
}

grpc::ServerUnaryReactor* OpenInferenceService::SystemSharedMemoryRegister(
    grpc::CallbackServerContext* context,
    const inference::SystemSharedMemoryRegisterRequest* request,
    inference::SystemSharedMemoryRegisterResponse* response) {
  return Answer(*context, "SystemSharedMemoryRegister", absl::UnimplementedError(kNoSharedMemory));
}

grpc::ServerUnaryReactor* OpenInferenceService::SystemSharedMemoryUnregister(
    grpc::CallbackServerContext* context,
    const inference::SystemSharedMemoryUnregisterRequest* request,
    inference::SystemSharedMemoryUnregisterResponse* response) {
  return Answer(*context, "SystemSharedMemoryUnregister",
                absl::UnimplementedError(kNoSharedMemory));
}

grpc::ServerUnaryReactor* OpenInferenceService::CudaSharedMemoryStatus(
    grpc::CallbackServerContext* context, const inference::CudaSharedMemoryStatusRequest* request,
    inference::CudaSharedMemoryStatusResponse* response) {
  return Answer(*context, "CudaSharedMemoryStatus", absl::UnimplementedError(kNoSharedMemory));
}

grpc::ServerUnaryReactor* OpenInferenceService::CudaSharedMemoryRegister(
    grpc::CallbackServerContext* context, const inference::CudaSharedMemoryRegisterRequest* request,
    inference::CudaSharedMemoryRegisterResponse* response) {
  return Answer(*context, "CudaSharedMemoryRegister", absl::UnimplementedError(kNoSharedMemory));
}

grpc::ServerUnaryReactor* OpenInferenceService::CudaSharedMemoryUnregister(
    grpc::CallbackServerContext* context,
    const inference::CudaSharedMemoryUnregisterRequest* request,
    inference::CudaSharedMemoryUnregisterResponse* response) {
  return Answer(*context, "CudaSharedMemoryUnregister", absl::UnimplementedError(kNoSharedMemory));
}

}  // namespace evaserve

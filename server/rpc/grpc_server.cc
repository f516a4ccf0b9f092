#include "server/rpc/grpc_server.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/engine/durations.h"
#include "server/rpc/bounded_decompression.h"
#include "server/rpc/evaserve_service.h"
#include "server/rpc/open_inference_service.h"
#include "server/rpc/server_credentials.h"

namespace evaserve {
namespace {

spdlog::level::level_enum LevelOf(const gpr_log_func_args& args) {
  if (args.severity != GPR_LOG_SEVERITY_ERROR) return spdlog::level::debug;
  // What a client did wrong is no fault of the server.
  const bool is_handshake = std::string_view(args.message).starts_with("Handshake failed");
  return is_handshake ? spdlog::level::info : spdlog::level::err;
}

void LogFromGrpc(gpr_log_func_args* args) {
  spdlog::log(LevelOf(*args), "grpc: {}", args->message);
}

// gRPC keeps these per process, for all servers built afterwards.
void SetUpGrpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function(LogFromGrpc);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

void SetOptions(const GrpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(options.max_message_bytes);
  grpc::ResourceQuota quota("evaserve");
  quota.Resize(static_cast<size_t>(options.receive_memory_bytes));
  builder.SetResourceQuota(quota);
  LimitDecompression(options.max_message_bytes);
  auto set = [&builder](const char* name, int64_t value) {
    builder.AddChannelArgument(name, static_cast<int>(value));
  };
  set(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  set(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  set(GRPC_ARG_KEEPALIVE_TIME_MS, options.keepalive_time.count());
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, options.keepalive_timeout.count());
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      options.min_client_ping_interval.count());
  if (options.max_connection_age.count() > 0) {
    set(GRPC_ARG_MAX_CONNECTION_AGE_MS, options.max_connection_age.count());
  }
  if (options.max_connection_age_grace.count() > 0) {
    set(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, options.max_connection_age_grace.count());
  }
}

}  // namespace

struct GrpcServer::Services {
  EvaserveService evaserve;
  OpenInferenceService open_inference;
};

GrpcServer::GrpcServer() = default;

GrpcServer::~GrpcServer() {
  Shutdown(Clock::now(), TimePoint::max());
  if (ending_.joinable()) ending_.join();
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              const ServiceParts& parts) {
  SetUpGrpc();
  std::unique_ptr<GrpcServer> self(new GrpcServer);
  self->services_.reset(
      new Services{.evaserve{parts.models, parts.log, *options.authorizer},
                   .open_inference{parts, *options.authorizer, options.server_version}});
  self->credentials_ = MakeServerCredentials(options.tls, *options.authorizer, parts.log);
  grpc::ServerBuilder builder;
  SetOptions(options, builder);
  builder.RegisterService(&self->services_->evaserve);
  builder.RegisterService(&self->services_->open_inference);
  self->connections_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, self->credentials_);
  auto listener =
      Listener::Listen({.address = options.address, .user_timeout = options.keepalive_timeout});
  if (!listener.ok()) return listener.status();
  self->listener_ = *std::move(listener);
  self->server_ = builder.BuildAndStart();
  if (self->server_ == nullptr) return absl::InternalError("gRPC does not start");
  self->SetServing(false);
  self->listener_->Start([connections = self->connections_.get()](int listening, int connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.listener_fd = listening;
    parameters.fd = connection;
    connections->HandleNewConnection(&parameters);
  });
  return self;
}

int GrpcServer::port() const { return listener_->port(); }

void GrpcServer::SetModelServing(const std::string& model, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(model, serving);
}

void GrpcServer::SetServing(bool serving) {
  for (const char* name : {"", v1::Inference::service_full_name(),
                           inference::GRPCInferenceService::service_full_name()}) {
    server_->GetHealthCheckService()->SetServingStatus(name, serving);
  }
}

void GrpcServer::SetNotServingForGood() { server_->GetHealthCheckService()->Shutdown(); }

void GrpcServer::BeginShutdown() {
  if (server_ == nullptr || ending_.joinable()) return;
  listener_->Close();
  ending_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "eva-grpc-end");
    // Sends GOAWAY on every connection at once, and returns when all calls have ended.
    server_->Shutdown();
    has_ended_.Notify();
  });
}

bool GrpcServer::Shutdown(TimePoint deadline, TimePoint limit) {
  if (server_ == nullptr) return true;
  BeginShutdown();
  // grpc::Server has one deadline, and what is to end earlier than that, as watches of health when
  // nothing else is left, has to be cancelled below it. Again after a while: a thread that has only
  // just begun the end may let a call in after the first time.
  constexpr std::chrono::milliseconds kCancelInterval{1000};
  TimePoint next = deadline;
  while (!has_ended_.WaitForNotificationWithTimeout(Until(std::min(next, limit)))) {
    if (Clock::now() >= limit) return false;
    grpc_server_cancel_all_calls(server_->c_server());
    next = Clock::now() + kCancelInterval;
  }
  return true;
}

}  // namespace evaserve

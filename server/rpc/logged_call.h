#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <utility>

#include "server/rpc/request_log.h"

namespace evaserve {

// What the reactors of calls that are answered by one message have in common: the call's scope and
// deadline, and its end. Owned by gRPC: it lives until OnDone().
class LoggedCall : public grpc::ServerUnaryReactor {
 protected:
  LoggedCall(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope);

  RequestScope& scope() { return *scope_; }
  TimePoint deadline() const { return deadline_; }

  // Ends the call. The last use of this, which may be gone afterwards.
  void End(absl::Status status);

 private:
  void OnDone() override { delete this; }

  grpc::CallbackServerContext& context_;
  const std::unique_ptr<RequestScope> scope_;
  const TimePoint deadline_;
};

}  // namespace evaserve

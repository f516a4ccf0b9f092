#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <vector>

#include "server/rpc/request_group.h"
#include "server/rpc/request_log.h"

namespace evaserve {

// The reactor of a call that is answered by one message, made from the results of one or more
// requests. Owned by gRPC: it lives until OnDone(). Cancelling the call cancels the requests.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  // Fills the response from the results, in the order of the requests. Called at most once, on any
  // thread, before the call ends.
  using Answer = std::function<void(const std::vector<GroupResult>& results)>;

  struct Work {
    std::shared_ptr<Engine> engine;
    std::vector<Request> requests{};
    Answer answer{};
  };

  // Runs `work`, or ends the call with its error.
  static UnaryCall* Start(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope,
                          absl::StatusOr<Work> work);

 private:
  UnaryCall(grpc::CallbackServerContext& context, std::unique_ptr<RequestScope> scope);

  void Run(Work work);
  void End(absl::Status status);

  void OnCancel() override;
  void OnDone() override { delete this; }

  grpc::CallbackServerContext& context_;
  const std::unique_ptr<RequestScope> scope_;
  const TimePoint deadline_;
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<RequestGroup> group_;
};

}  // namespace evaserve

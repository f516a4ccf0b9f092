#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "server/rpc/logged_call.h"
#include "server/rpc/request_group.h"

namespace evaserve {

// The reactor of a call that is answered by one message, made from the results of one or more
// requests. Cancelling the call cancels the requests.
class UnaryCall : public LoggedCall {
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
  using LoggedCall::LoggedCall;

  void Run(Work work);
  void OnCancel() override;

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<RequestGroup> group_;
};

}  // namespace evaserve

#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "absl/synchronization/mutex.h"
#include "models/tensor_model.h"
#include "server/config.h"
#include "server/log.h"
#include "server/rpc/listener.h"
#include "server/server.h"
#include "server/termination.h"

int main(int argc, char** argv) {
  const evaserve::ParsedConfig parsed = evaserve::ParseConfig(argc, argv);
  if (!parsed.config) {
    std::fputs(parsed.message.c_str(), parsed.exit_code == 0 ? stdout : stderr);
    return parsed.exit_code;
  }
  // Distributions build Abseil with its search for deadlocks, which costs a few percent of a
  // request.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  evaserve::SetUpLogging(parsed.config->log_level, parsed.config->log_format);
  evaserve::RaiseFileLimit();
  if (parsed.config->allow_packages) {
    // AOTInductor's code then compares the tensors that it is given with those that it was compiled
    // for, before it reads them. Now, as there is one thread.
    setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", /*overwrite=*/0);
  }
  evaserve::Termination termination;

  auto server = evaserve::Server::Listen(*parsed.config, evaserve::LoadAnyModel,
                                         [&termination] { termination.Request(); });
  absl::Status status = server.status();
  if (status.ok()) {
    termination.Wait();
    status = (*server)->load_status();
  }
  if (!status.ok()) {
    spdlog::critical("cannot start: {}", std::string(status.message()));
    return 1;
  }
  // Beyond what Shutdown() takes at most: for a thread that hangs with a lock.
  constexpr std::chrono::seconds kEndTime{8};
  termination.EndWithin(std::chrono::ceil<std::chrono::seconds>(parsed.config->drain_pause) +
                        parsed.config->drain_timeout + kEndTime);
  const bool has_ended = (*server)->Shutdown();
  const int exit_code = (*server)->has_failed() || !has_ended ? 1 : 0;
  // No call is to be answered any more, a load may take minutes, and a step for ever.
  if ((*server)->is_loading() || !has_ended) std::_Exit(exit_code);
  return exit_code;
}

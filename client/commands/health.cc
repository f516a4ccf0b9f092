#include <algorithm>
#include <memory>

#include "absl/time/clock.h"
#include "client/commands/command.h"
#include "client/commands/json.h"

namespace evaserve {
namespace {

struct HealthFlags {
  double wait_s = 0;
};

// Ok if it serves; otherwise why not, as far as one can tell.
absl::Status CheckHealth(const HealthFlags& flags, const Session& session) {
  if (flags.wait_s > 0) {
    CallOptions call = session.call;
    call.deadline = std::min(call.deadline, absl::Now() + absl::Seconds(flags.wait_s));
    return session.client.WaitUntilServing(session.flags.model, call);
  }
  const auto serving = session.client.IsServing(session.flags.model, session.call);
  if (!serving.ok()) return serving.status();
  return *serving ? absl::OkStatus() : absl::UnavailableError("the server says NOT_SERVING");
}

ExitCode RunHealth(const HealthFlags& flags, const Session& session) {
  const absl::Status status = CheckHealth(flags, session);
  const std::string state = status.ok() ? "SERVING" : "NOT_SERVING";
  PrintBytes(session.flags.json ? ToLine({{"status", state}}) : state + "\n");
  if (status.ok()) return kExitOk;
  return Fail(status) == kExitInterrupted ? kExitInterrupted : kExitNotHealthy;
}

}  // namespace

Command AddHealthCommand(CLI::App& eva) {
  CLI::App& app =
      *eva.add_subcommand("health", "Whether the server, or --model, takes requests (exit 0 or 3)");
  auto flags = std::make_shared<HealthFlags>();
  app.add_option("--wait", flags->wait_s, "Wait so many seconds until it does")
      ->check(CLI::NonNegativeNumber);
  return {.app = &app,
          .run = [flags](const Session& session) { return RunHealth(*flags, session); }};
}

}  // namespace evaserve

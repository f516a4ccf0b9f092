// eva: the command line of evaserve.
#include <CLI/CLI.hpp>
#include <vector>

#include "absl/time/clock.h"
#include "client/client.h"
#include "client/commands/command.h"
#include "client/interrupt.h"

namespace evaserve {
namespace {

constexpr char kExitCodes[] =
    "Exit codes: 0 done; 1 the server refused or failed; 2 wrong flags or unreadable input;\n"
    "3 not healthy (health); 4 --timeout passed; 130 interrupted.\n";

void AddGlobalFlags(CLI::App& eva, GlobalFlags& flags) {
  eva.add_option("-s,--server", flags.server, "HOST:PORT of the server's gRPC port")
      ->envname("EVA_SERVER")
      ->capture_default_str();
  eva.add_option("-m,--model", flags.model, "Which model; needed only where several are served");
  eva.add_option("--timeout", flags.timeout_s, "Seconds for the whole command")
      ->check(CLI::PositiveNumber);
  eva.set_version_flag("--version", EVASERVE_VERSION);
  eva.add_flag("--json", flags.json, "One JSON object per line");
}

void AddConnectionFlags(CLI::App& eva, GlobalFlags& flags) {
  const std::string group = "Security";
  ConnectionOptions& connection = flags.connection;
  eva.add_flag("--tls", connection.tls, "Encrypt, and check the server's certificate")
      ->envname("EVA_TLS")
      ->group(group);
  eva.add_option("--tls-ca", connection.ca_file,
                 "PEM file of authorities to trust instead of the system's; implies --tls")
      ->envname("EVA_TLS_CA")
      ->group(group);
  eva.add_option("--tls-cert", connection.cert_file,
                 "PEM file of the client's certificate, where the server asks for one")
      ->envname("EVA_TLS_CERT")
      ->group(group);
  eva.add_option("--tls-key", connection.key_file, "PEM file of its key")
      ->envname("EVA_TLS_KEY")
      ->group(group);
  eva.add_option("--token-file", flags.token_file,
                 "File with the token to show, or - for standard input; else it is EVA_TOKEN")
      ->envname("EVA_TOKEN_FILE")
      ->group(group);
  eva.add_flag("--token-without-tls", connection.token_without_tls,
               "Send the token to another machine without encryption")
      ->envname("EVA_TOKEN_WITHOUT_TLS")
      ->group(group);
}

int Main(int argc, char** argv) {
  CLI::App eva("Talks to an evaserve server over gRPC.", "eva");
  GlobalFlags flags;
  AddGlobalFlags(eva, flags);
  AddConnectionFlags(eva, flags);
  eva.footer(kExitCodes);
  eva.require_subcommand(1);
  eva.fallthrough();  // global flags may stand after the command
  const std::vector<Command> commands = {
      AddGenerateCommand(eva), AddScoreCommand(eva),     AddEmbedCommand(eva),
      AddClassifyCommand(eva), AddTranslateCommand(eva), AddFillMaskCommand(eva),
      AddModelsCommand(eva),   AddHealthCommand(eva),    AddTokenCommand(eva)};
  try {
    eva.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return eva.exit(error) == 0 ? kExitOk : kExitUsage;
  }

  Cancellation cancellation;
  InterruptGuard interrupt(cancellation);
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return FailUsage(std::string(client.status().message()));
  CallOptions call = {.cancellation = &cancellation};
  if (flags.timeout_s > 0) call.deadline = absl::Now() + absl::Seconds(flags.timeout_s);
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run({flags, *client, call});
  }
  return kExitUsage;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

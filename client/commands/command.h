#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/call_options.h"
#include "client/client.h"

namespace evaserve {

// What `eva` exits with. Interrupted is what a shell expects of SIGINT.
enum ExitCode {
  kExitOk = 0,
  kExitFailed = 1,      // the server, or the way to it, refused or failed
  kExitUsage = 2,       // wrong flags, or an input file that cannot be read
  kExitNotHealthy = 3,  // `eva health`: not serving
  kExitDeadline = 4,    // --timeout passed
  kExitInterrupted = 130,
};

// The flags that every command takes.
struct GlobalFlags {
  std::string server = "localhost:8001";
  ConnectionOptions connection;  // without the token
  std::string token_file;        // empty: EVA_TOKEN of the environment, if there is one
  std::string model;             // empty: the only model served
  double timeout_s = 0;          // for the whole command; 0: none
  bool json = false;
};

// What a command works with.
struct Session {
  const GlobalFlags& flags;
  Client& client;
  CallOptions call;  // the deadline and the interrupt of the whole command
};

// A subcommand: its flags are registered in `app`, and `run` is called if it was chosen.
struct Command {
  CLI::App* app = nullptr;
  std::function<ExitCode(const Session&)> run;
};

Command AddGenerateCommand(CLI::App& eva);
Command AddScoreCommand(CLI::App& eva);
Command AddEmbedCommand(CLI::App& eva);
Command AddClassifyCommand(CLI::App& eva);
Command AddTranslateCommand(CLI::App& eva);
Command AddFillMaskCommand(CLI::App& eva);
Command AddModelsCommand(CLI::App& eva);
Command AddHealthCommand(CLI::App& eva);
Command AddTokenCommand(CLI::App& eva);

// Prints why the command failed to stderr; returns the exit code for it. `status` is not ok.
ExitCode Fail(const absl::Status& status);

// As Fail(), for input that the command cannot take.
ExitCode FailUsage(std::string_view message);

// The bytes of a file, or of standard input for "-". Errors name the file.
absl::StatusOr<std::string> ReadInput(const std::string& path);

// The lines of standard input, without their ends.
absl::StatusOr<std::vector<std::string>> ReadLines();

// A client for the server that `flags` name. Errors: what is wrong with them.
absl::StatusOr<Client> Connect(const GlobalFlags& flags);

// How many of `num_texts` may go into one request: at most `most`, and what the model takes at a
// time. Asks the server if it matters.
absl::StatusOr<size_t> MaxTextsPerRequest(size_t num_texts, size_t most, const Session& session);

// Writes bytes to standard output as they are, at once.
void PrintBytes(std::string_view bytes);

}  // namespace evaserve

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "models/device.h"
#include "server/log.h"

namespace evaserve {

struct ModelSpec {
  std::string name;
  std::filesystem::path directory;
};

// What the server is started with: each field is an option of the command line with nearly its
// name. docs/configuration.md lists them.
struct Config {
  // Directories in Hugging Face layout, and the names that clients call them by. At least one.
  std::vector<ModelSpec> models;

  // HOST:PORT for gRPC, and for /metrics, /healthz and /readyz over HTTP; port 0 takes a free one.
  // An empty metrics_address turns HTTP off.
  std::string address = "0.0.0.0:8001";
  std::string metrics_address = "0.0.0.0:8002";

  // Threads for the kernels of each model; 0 means one for each core that the process may use.
  int threads = 0;
  // Where models run.
  Device device{Device::Kind::kAuto};
  // What weights are kept in; absent: what the model's config.json says.
  std::optional<DType> dtype;
  // Memory for the sequences of each model, in MiB. Of the CPU's it is taken as it is used.
  int64_t state_memory_mb = 1024;

  // Tokens in one step over all sequences of a model: bounds how long a prompt can hold up the
  // sequences that are generating.
  int max_batch_tokens = 2048;
  // Sequences of a model that run at the same time.
  int max_running = 256;
  // Sequences that wait for a place; more are refused with RESOURCE_EXHAUSTED.
  int max_waiting = 1024;
  // The largest message, in MiB, that is taken or sent.
  int max_message_mb = 64;

  // How long requests in flight may go on after SIGTERM.
  std::chrono::seconds drain_timeout{30};

  spdlog::level::level_enum log_level = spdlog::level::info;
  LogFormat log_format = LogFormat::kText;
};

// A configuration, or a reason to end at once.
struct ParsedConfig {
  std::optional<Config> config{};
  int exit_code = 0;      // 0 after --help and --version, 2 after a bad value
  std::string message{};  // what to print then: one line after a bad value
};

// Reads the command line, then for what it does not give the file of --config, then the
// environment (EVASERVE_ and the option's name).
ParsedConfig ParseConfig(int argc, const char* const* argv);

// The options' names as on the command line, "--address", and their environment variables.
struct OptionName {
  std::string flag;
  std::string environment;  // empty for --help and --version
};
std::vector<OptionName> OptionNames();

}  // namespace evaserve

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "models/device.h"
#include "server/engine/overload.h"
#include "server/log.h"
#include "server/repository/repository_control.h"
#include "server/rpc/tls_certificates.h"

namespace evaserve {

struct ModelSpec {
  std::string name;
  std::filesystem::path directory;
};

// What the server is started with: each field is an option of the command line with nearly its
// name. config_options.cc declares them, docs/configuration.md lists them.
struct Config {
  // Directories in Hugging Face layout, and the names that clients call them by. At least one, or
  // a repository.
  std::vector<ModelSpec> models;
  // A directory of models (model_source.h), and who decides which of them are loaded.
  std::filesystem::path model_repository;
  ControlMode model_control_mode = ControlMode::kNone;
  std::chrono::milliseconds repository_poll{15'000};
  // In mode explicit, those that are loaded at the start; "*" is all.
  std::vector<std::string> load_models;
  // Whether a model of the repository that could not be loaded at the start keeps the server from
  // being ready.
  bool strict_readiness = true;

  // Whether models may be packages (models/package): programs, which run with the server's rights.
  bool allow_packages = false;
  // Their libevaserve_torch_models.so; empty: it is looked for.
  std::filesystem::path torch_library;

  // HOST:PORT for gRPC, and for /metrics, /healthz and /readyz over HTTP; port 0 takes a free one.
  // An empty metrics_address turns HTTP off.
  std::string address = "0.0.0.0:8001";
  std::string metrics_address = "0.0.0.0:8002";

  // A client's connection that is this old is closed, so that the client connects again, perhaps to
  // a new replica; calls in flight may go on for the grace. 0: never, and as long as they take.
  std::chrono::milliseconds max_connection_age{0};
  std::chrono::milliseconds max_connection_age_grace{0};

  // What encrypts gRPC; without a certificate nothing does. Read again every credentials_reload.
  TlsFiles tls;
  // A list of tokens (token_list.h); empty: clients need none. Read again every credentials_reload.
  std::filesystem::path auth_tokens;
  // Takes tokens from anywhere over connections that are not encrypted.
  bool auth_without_tls = false;
  std::chrono::milliseconds credentials_reload{10'000};

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
  // Tokens of those that wait, and MiB of their tensors.
  int64_t max_waiting_tokens = 16 << 20;
  int64_t max_waiting_mb = 512;
  // Tokens of one prompt or text, and new tokens of one answer; 0: the model's limits alone.
  int64_t max_prompt_tokens = 0;
  int64_t max_new_tokens = 0;
  // How long a request may wait for a place, and take in all; 0: as long as its deadline says.
  std::chrono::milliseconds max_queue_time{0};
  std::chrono::milliseconds max_request_time{0};
  // How long a client may be silent that sends a prompt in pieces; 0: for ever.
  std::chrono::milliseconds max_piece_wait{60'000};
  // What those are told that find no place or wait too long for one.
  OverloadStatus overload_status = OverloadStatus::kResourceExhausted;
  // Tokens that a new model is fed before it is ready; 0: none.
  int warmup_tokens = 64;
  // The largest message, in MiB, that is taken or sent.
  int max_message_mb = 64;
  // What gRPC has received and not handed on yet, of all connections together.
  int receive_memory_mb = 1024;

  // After SIGTERM: how long requests are still taken, while health says no more, and how long those
  // in flight may go on after that.
  std::chrono::milliseconds drain_pause{0};
  std::chrono::seconds drain_timeout{30};

  // A step that takes longer makes the server unhealthy; 0: none does.
  std::chrono::milliseconds step_timeout{60'000};

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
// environment (EVASERVE_ and the option's name). Certificates and tokens are read too, to see
// whether they can be used.
ParsedConfig ParseConfig(int argc, const char* const* argv);

}  // namespace evaserve

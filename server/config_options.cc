#include "server/config_options.h"

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "models/device.h"

// The descriptions are also what docs/configuration.md says: scripts/write-option-table.sh.
namespace evaserve {
namespace {

struct Limits {
  int64_t min;
  int64_t max;
};

constexpr Limits kAny{0, std::numeric_limits<int64_t>::max()};
constexpr Limits kUpToAYear{0, 365 * 86400};

std::string EnvironmentName(std::string flag) {
  for (char& c : flag) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return "EVASERVE_" + flag;
}

template <typename T>
CLI::Option* Add(CLI::App& app, const std::string& name, T& value, const std::string& description) {
  return app.add_option("--" + name, value, description)
      ->envname(EnvironmentName(name))
      ->capture_default_str();
}

// Empty, or what is wrong. For CLI::Range "nan" is within any limits.
std::string IsFinite(const std::string& text) {
  return std::isfinite(std::strtod(text.c_str(), nullptr)) ? "" : text + " is not a number";
}

// A number within `limits`, which stand for "{limits}" in the description.
template <typename T>
void AddNumber(CLI::App& app, const std::string& name, T& value, Limits limits,
               const std::string& description) {
  const std::string told = absl::StrCat(limits.min, " .. ", limits.max);
  CLI::Option* const option =
      Add(app, name, value, absl::StrReplaceAll(description, {{"{limits}", told}}));
  option->check(CLI::Range(static_cast<T>(limits.min), static_cast<T>(limits.max)));
  if constexpr (std::is_floating_point_v<T>) option->check(IsFinite);
}

// Empty, or what is wrong.
std::string IsDevice(const std::string& text) {
  return std::string(ParseDevice(text).status().message());
}

void DeclareModels(CLI::App& app, Config& config, TextValues& text) {
  Add(app, "model", text.models,
      "A model to serve: `DIR`, named after the directory, or `NAME=DIR`. Repeat it, or separate "
      "by commas, for several. This or `--model-repository` is required")
      ->delimiter(',');
  Add(app, "model-repository", text.model_repository,
      "A directory of models, `NAME/config.json` or `NAME/VERSION/config.json`");
  Add(app, "model-control-mode", text.model_control_mode,
      "Of the repository: `none` loads all models at the start, `poll` also follows changes of "
      "the directory, `explicit` loads and unloads as clients ask (`RepositoryModelLoad`, "
      "`RepositoryModelUnload`)")
      ->check(CLI::IsMember({"none", "poll", "explicit"}));
  AddNumber(app, "repository-poll-s", text.repository_poll_s, {1, 86400},
            "Seconds between two looks at the directory in mode `poll`, {limits}");
  Add(app, "load-model", config.load_models,
      "In mode `explicit`, a model of the repository to load at the start, or `*` for all. May be "
      "repeated")
      ->delimiter(',');
  Add(app, "strict-readiness", config.strict_readiness,
      "`true`: a model of the repository that was to be loaded at the start and failed keeps the "
      "server from being ready (`/readyz`, health, `ServerReady`) until it is loaded, unloaded or "
      "removed. `false`: the server is ready when all have been tried")
      ->default_str("true");
  AddNumber(app, "warmup-tokens", config.warmup_tokens, {0, 1 << 20},
            "Tokens that a new model is fed before it is ready, so that the first request is not "
            "slower than others, {limits}");
  app.add_flag(
         "--allow-packages", config.allow_packages,
         "Loads models that are TorchScript files or AOTInductor packages. These are programs "
         "that run with the server's rights: whoever can write to a model's directory can do "
         "what the server can. Without it they are refused")
      ->envname(EnvironmentName("allow-packages"));
  Add(app, "torch-library", text.torch_library,
      "The path of `libevaserve_torch_models.so`, which runs packages and needs LibTorch. Without "
      "it, "
      "it is looked for beside the program, in `../lib`, and where the system has libraries");
}

void DeclareConnections(CLI::App& app, Config& config, TextValues& text) {
  Add(app, "address", config.address,
      "`HOST:PORT` for gRPC. Port 0 takes a free one; the log's line `ready` tells it");
  Add(app, "metrics-address", config.metrics_address,
      "`HOST:PORT` for `/metrics`, `/healthz` and `/readyz` over HTTP; an IPv4 address. `off` "
      "turns "
      "them off");
  AddNumber(app, "max-connection-age-s", text.max_connection_age_s, {0, 604800},
            "Seconds, {limits}, after which a client's connection is closed without harm to its "
            "calls: the client connects again, perhaps to a replica that is new. A tenth more or "
            "less by chance, so that not all come at once. 0: never");
  AddNumber(app, "max-connection-age-grace-s", text.max_connection_age_grace_s, {0, 604800},
            "Seconds, {limits}, that the calls of such a connection may go on before they are "
            "cut; 0: as long as they take");
}

void DeclareSecurity(CLI::App& app, Config& config, TextValues& text) {
  Add(app, "tls-cert", text.tls_cert,
      "PEM file: the certificate that encrypts gRPC, followed by those between it and its "
      "authority. This and `--tls-key`, or neither");
  Add(app, "tls-key", text.tls_key, "PEM file: the key of `--tls-cert`, without a password");
  Add(app, "tls-client-ca", text.tls_client_ca,
      "PEM file: authorities. Clients need a certificate of one of them");
  Add(app, "auth-tokens", text.auth_tokens,
      "File of tokens, `NAME SHA256 MODELS [admin]` a line. Clients need one of them");
  app.add_flag("--auth-without-tls", config.auth_without_tls,
               "Takes tokens over connections that are not encrypted. Without it `--auth-tokens` "
               "needs `--tls-cert`, or an `--address` of this machine")
      ->envname(EnvironmentName("auth-without-tls"));
  AddNumber(app, "credentials-reload-s", text.credentials_reload_s, {1, 86400},
            "Seconds, {limits}, between two looks at the files of `--tls-...` and "
            "`--auth-tokens`: what they hold then is used without a restart");
}

void DeclareMachine(CLI::App& app, Config& config, TextValues& text) {
  AddNumber(app, "threads", config.threads, {0, 1024},
            "Threads for the kernels of each model, {limits}; 0 is one for each core that the "
            "process may use");
  Add(app, "device", text.device,
      "Where models run: `cpu`, `cuda:N` (in a build with CUDA, with a driver of 580 or later; an "
      "error if that device is missing or does not take the model), or `auto`: the first CUDA "
      "device if there is one and it takes the model, else the CPU. The log's line `loaded` tells "
      "which")
      ->check(IsDevice);
  Add(app, "dtype", text.dtype,
      "What weights are kept in: `float32`, `bfloat16`, `float16` (on a GPU only), or `auto`, as "
      "the model's `config.json` says")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}));
  AddNumber(app, "state-memory-mb", config.state_memory_mb, {1, 1 << 24},
            "Memory in MiB for the sequences of each model, {limits}. On the CPU it is taken as it "
            "is used, on a device at once");
}

void DeclareLimits(CLI::App& app, Config& config, TextValues& text) {
  AddNumber(app, "max-batch-tokens", config.max_batch_tokens, {1, 1 << 20},
            "Tokens in one step over all sequences of a model, {limits}. Fewer: generating "
            "sequences are held up less by long prompts. More: prompts are taken in faster");
  AddNumber(app, "max-running", config.max_running, {1, 1 << 16},
            "Sequences of a model that run at the same time, {limits}");
  AddNumber(app, "max-waiting", config.max_waiting, {1, 1 << 20},
            "Sequences that wait for a place, {limits}. More are refused with "
            "`RESOURCE_EXHAUSTED`");
  AddNumber(app, "max-waiting-tokens", config.max_waiting_tokens, kAny,
            "Tokens in the prompts of those that wait. More are refused with "
            "`RESOURCE_EXHAUSTED`");
  AddNumber(app, "max-waiting-mb", config.max_waiting_mb, {1, 1 << 24},
            "MiB in the tensors of those that wait for a model of tensors, {limits}. More are "
            "refused with `RESOURCE_EXHAUSTED`");
  AddNumber(app, "max-prompt-tokens", config.max_prompt_tokens, kAny,
            "Tokens of one prompt or text; longer ones are refused with `INVALID_ARGUMENT`. 0: the "
            "model's limit");
  AddNumber(app, "max-new-tokens", config.max_new_tokens, kAny,
            "New tokens that one request may ask for. 0: the model's limit");
  AddNumber(app, "max-queue-s", text.max_queue_s, kUpToAYear,
            "Seconds that a request may wait for a place, fractions allowed; then it ends with "
            "`DEADLINE_EXCEEDED`. 0: as long as its deadline says");
  AddNumber(app, "max-request-s", text.max_request_s, kUpToAYear,
            "Seconds that a request may take in all, fractions allowed; then it ends with "
            "`DEADLINE_EXCEEDED`. 0: as long as its deadline says");
  AddNumber(app, "max-piece-wait-s", text.max_piece_wait_s, kUpToAYear,
            "Seconds, fractions allowed, that a client may be silent while a prompt that it sends "
            "in pieces (`GenerateStream`) holds a place and all that came of it has been taken in; "
            "then it ends with `DEADLINE_EXCEEDED`. 0: as long as its deadline says");
  Add(app, "overload-status", text.overload_status,
      "What requests are told that find no place in the queue: `resource-exhausted`, or "
      "`unavailable` as Triton does, then also those that have waited for `--max-queue-s`")
      ->check(CLI::IsMember({"resource-exhausted", "unavailable"}));
  AddNumber(app, "max-message-mb", config.max_message_mb, {1, 2047},
            "The largest gRPC message in MiB that is taken or sent, {limits}");
  AddNumber(
      app, "receive-memory-mb", config.receive_memory_mb, {64, 1048576},
      "Memory in MiB, {limits}, for what has been received of messages that are not complete, "
      "of all connections together. Past it such calls end with `RESOURCE_EXHAUSTED`, and "
      "connections are closed, also those of others: their calls end with `UNAVAILABLE`");
}

void DeclareLifeAndLog(CLI::App& app, TextValues& text) {
  AddNumber(app, "step-timeout-s", text.step_timeout_s, {0, 86400},
            "Seconds, {limits}: a step that takes longer turns health, `/readyz` and `/healthz` to "
            "not serving, until it ends; 0: never");
  AddNumber(app, "drain-pause-s", text.drain_pause_s, {0, 3600},
            "Seconds after SIGTERM, {limits}, in which health says not serving and requests are "
            "still taken, so that load balancers can hear of it first");
  AddNumber(app, "drain-timeout-s", text.drain_timeout_s, {0, 3600},
            "Seconds that requests in flight may go on after SIGTERM, {limits}");
  Add(app, "log-level", text.log_level,
      "`trace`, `debug`, `info`, `warning`, `error` or `off`. Inferences are told at `info`, "
      "questions such as `ServerReady` at `debug`")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}));
  Add(app, "log-format", text.log_format,
      "`text` (`time level message key=value ...`) or `json` (one object a line), to standard "
      "error")
      ->check(CLI::IsMember({"text", "json"}));
}

}  // namespace

void DeclareOptions(CLI::App& app, Config& config, TextValues& text) {
  DeclareModels(app, config, text);
  DeclareConnections(app, config, text);
  DeclareSecurity(app, config, text);
  DeclareMachine(app, config, text);
  DeclareLimits(app, config, text);
  DeclareLifeAndLog(app, text);
  // CLI11 reads the file before the environment, so its name has to be there already.
  const char* file = std::getenv(EnvironmentName("config").c_str());
  app.set_config("--config", file == nullptr ? "" : file,
                 "A file with any of these options, one `NAME=VALUE` a line", file != nullptr)
      ->envname(EnvironmentName("config"));
  app.allow_config_extras(false);
  app.set_help_flag("-h,--help", "Lists the options");
  app.set_version_flag("--version", "evaserve " EVASERVE_VERSION, "Tells the version");
}

}  // namespace evaserve

#include "server/config.h"

#include <arpa/inet.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/authorizer.h"

namespace evaserve {
namespace {

// How the values look that CLI11 has no type for.
struct TextValues {
  std::vector<std::string> models;
  std::string model_repository;
  std::string model_control_mode = "none";
  int64_t repository_poll_s = 15;
  double max_queue_s = 0;
  double max_request_s = 0;
  double step_timeout_s = 60;
  double drain_pause_s = 0;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  std::string auth_tokens;
  int64_t credentials_reload_s = 0;
  std::string device = "auto";
  std::string dtype = "auto";
  int64_t drain_timeout_s = 0;
  std::string log_level = "info";
  std::string log_format = "text";
};

const std::map<std::string, ControlMode> kControlModes{{"none", ControlMode::kNone},
                                                       {"poll", ControlMode::kPoll},
                                                       {"explicit", ControlMode::kExplicit}};

const std::map<std::string, std::optional<DType>> kDTypes{{"auto", std::nullopt},
                                                          {"float32", DType::kFloat32},
                                                          {"bfloat16", DType::kBFloat16},
                                                          {"float16", DType::kFloat16}};

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::duration<double>(seconds));
}

std::string EnvironmentName(std::string flag) {
  for (char& c : flag) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return "EVASERVE_" + flag;
}

template <typename T>
CLI::Option* Add(CLI::App& app, const std::string& name, T& value, const char* help) {
  return app.add_option("--" + name, value, help)
      ->envname(EnvironmentName(name))
      ->capture_default_str();
}

// Empty, or what is wrong.
std::string IsDevice(const std::string& text) {
  return std::string(ParseDevice(text).status().message());
}

void DeclareSecurityOptions(CLI::App& app, Config& config, TextValues& text) {
  Add(app, "tls-cert", text.tls_cert,
      "PEM file: the certificate that encrypts gRPC, and its chain");
  Add(app, "tls-key", text.tls_key, "PEM file: the key of --tls-cert");
  Add(app, "tls-client-ca", text.tls_client_ca,
      "PEM file: clients need a certificate that one of these has issued");
  Add(app, "auth-tokens", text.auth_tokens,
      "File of tokens, NAME SHA256 MODELS [admin] a line: clients need one of them");
  app.add_flag("--auth-without-tls", config.auth_without_tls,
               "Take tokens over connections that are not encrypted")
      ->envname(EnvironmentName("auth-without-tls"));
  Add(app, "credentials-reload-s", text.credentials_reload_s,
      "Seconds between two looks at the files of --tls-... and --auth-tokens")
      ->check(CLI::Range(1, 86400));
}

void DeclareModelOptions(CLI::App& app, Config& config, TextValues& text) {
  Add(app, "model", text.models, "Model to serve: DIR or NAME=DIR; may be repeated")
      ->delimiter(',');
  Add(app, "model-repository", text.model_repository,
      "Directory of models: NAME/config.json or NAME/VERSION/config.json");
  Add(app, "model-control-mode", text.model_control_mode,
      "Of the repository: none (all models, for good), poll (all, following its changes) or "
      "explicit (as clients ask)")
      ->check(CLI::IsMember({"none", "poll", "explicit"}));
  Add(app, "repository-poll-s", text.repository_poll_s, "Seconds between two looks in mode poll")
      ->check(CLI::Range(1, 86400));
  Add(app, "load-model", config.load_models,
      "In mode explicit: a model to load at the start, or * for all; may be repeated")
      ->delimiter(',');
  Add(app, "warmup-tokens", config.warmup_tokens,
      "Tokens that a new model is fed before it is ready; 0: none")
      ->check(CLI::Range(0, 1 << 20));
}

void DeclareLimitOptions(CLI::App& app, Config& config, TextValues& text) {
  const auto any = CLI::Range(int64_t{0}, std::numeric_limits<int64_t>::max());
  const auto seconds = CLI::Range(0., 365. * 86400);
  Add(app, "max-waiting", config.max_waiting, "Sequences that wait; more are refused")
      ->check(CLI::Range(1, 1 << 20));
  Add(app, "max-waiting-tokens", config.max_waiting_tokens, "Tokens in the prompts of those")
      ->check(any);
  Add(app, "max-prompt-tokens", config.max_prompt_tokens,
      "Tokens of one prompt or text; 0: the model's limit")
      ->check(any);
  Add(app, "max-new-tokens", config.max_new_tokens,
      "New tokens of one answer; 0: the model's limit")
      ->check(any);
  Add(app, "max-queue-s", text.max_queue_s,
      "Seconds that a request may wait for a place; 0: as long as its deadline says")
      ->check(seconds);
  Add(app, "max-request-s", text.max_request_s,
      "Seconds that a request may take in all; 0: as long as its deadline says")
      ->check(seconds);
}

void DeclareOptions(CLI::App& app, Config& config, TextValues& text) {
  text.drain_timeout_s = config.drain_timeout.count();
  text.credentials_reload_s =
      std::chrono::duration_cast<std::chrono::seconds>(config.credentials_reload).count();

  DeclareModelOptions(app, config, text);
  Add(app, "address", config.address, "HOST:PORT for gRPC; port 0 takes a free one");
  Add(app, "metrics-address", config.metrics_address,
      "HOST:PORT for /metrics, /healthz and /readyz; empty or \"off\": none");
  DeclareSecurityOptions(app, config, text);
  Add(app, "threads", config.threads, "Threads for each model's kernels; 0: one a core")
      ->check(CLI::Range(0, 1024));
  Add(app, "device", text.device,
      "Where models run: cpu, cuda:N, or auto: the first CUDA device that takes the model, else "
      "cpu")
      ->check(IsDevice);
  Add(app, "dtype", text.dtype,
      "Weights: auto (config.json decides), float32, bfloat16 or float16 (GPU only)")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}));
  Add(app, "state-memory-mb", config.state_memory_mb, "Memory for each model's sequences, MiB")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  Add(app, "max-batch-tokens", config.max_batch_tokens, "Tokens in one step")
      ->check(CLI::Range(1, 1 << 20));
  Add(app, "max-running", config.max_running, "Sequences that run at the same time")
      ->check(CLI::Range(1, 1 << 16));
  DeclareLimitOptions(app, config, text);
  Add(app, "max-message-mb", config.max_message_mb, "Largest gRPC message, MiB")
      ->check(CLI::Range(1, 2047));
  Add(app, "step-timeout-s", text.step_timeout_s,
      "Seconds after which a step makes the server unhealthy; 0: never")
      ->check(CLI::Range(0., 86400.));
  Add(app, "drain-pause-s", text.drain_pause_s,
      "Seconds after SIGTERM in which requests are still taken, though health says no more")
      ->check(CLI::Range(0., 3600.));
  Add(app, "drain-timeout-s", text.drain_timeout_s,
      "Seconds that requests in flight may go on after SIGTERM")
      ->check(CLI::Range(0, 3600));
  Add(app, "log-level", text.log_level, "trace, debug, info, warning, error or off")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}));
  Add(app, "log-format", text.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  // CLI11 reads the file before the environment, so its name has to be there already.
  const char* file = std::getenv(EnvironmentName("config").c_str());
  app.set_config("--config", file == nullptr ? "" : file,
                 "File with any of these options, one NAME=VALUE a line", file != nullptr)
      ->envname(EnvironmentName("config"));
  app.allow_config_extras(false);
  app.set_version_flag("--version", "evaserve " EVASERVE_VERSION);
}

// Throws CLI::ValidationError, like the checks above.
ModelSpec ParseModel(const std::string& text) {
  ModelSpec spec;
  const size_t equals = text.find('=');
  if (text.empty()) {
    // Refused below.
  } else if (equals == std::string::npos) {
    // "dir/" has an empty last component.
    spec.directory = text;
    const auto clean = (spec.directory / "").parent_path();
    spec.name = std::filesystem::absolute(clean).lexically_normal().filename().string();
  } else {
    spec.name = text.substr(0, equals);
    spec.directory = text.substr(equals + 1);
  }
  if (spec.name.empty() || spec.directory.empty()) {
    throw CLI::ValidationError(
        "--model", absl::StrCat("got '", text, "', allowed is DIR or NAME=DIR, neither empty"));
  }
  return spec;
}

void ReadTextValues(const TextValues& text, Config& config) {
  for (const std::string& model : text.models) {
    ModelSpec spec = ParseModel(model);
    for (const ModelSpec& other : config.models) {
      if (other.name != spec.name) continue;
      throw CLI::ValidationError(
          "--model", absl::StrCat("two models are named '", spec.name, "', use NAME=DIR"));
    }
    config.models.push_back(std::move(spec));
  }
  config.model_repository = text.model_repository;
  config.model_control_mode = kControlModes.at(text.model_control_mode);
  config.repository_poll = std::chrono::seconds(text.repository_poll_s);
  config.max_queue_time = Milliseconds(text.max_queue_s);
  config.max_request_time = Milliseconds(text.max_request_s);
  config.step_timeout = Milliseconds(text.step_timeout_s);
  config.drain_pause = Milliseconds(text.drain_pause_s);
  // An empty value cannot be written as --metrics-address=.
  if (config.metrics_address == "off") config.metrics_address.clear();
  config.tls = {.cert = text.tls_cert, .key = text.tls_key, .client_ca = text.tls_client_ca};
  config.auth_tokens = text.auth_tokens;
  config.credentials_reload = std::chrono::seconds(text.credentials_reload_s);
  config.device = *ParseDevice(text.device);
  config.dtype = kDTypes.at(text.dtype);
  config.drain_timeout = std::chrono::seconds(text.drain_timeout_s);
  config.log_level = spdlog::level::from_str(text.log_level);
  config.log_format = text.log_format == "json" ? LogFormat::kJson : LogFormat::kText;
}

void ThrowUnlessOk(const char* option, const absl::Status& status) {
  if (!status.ok()) throw CLI::ValidationError(option, std::string(status.message()));
}

// Throws CLI::ValidationError unless there is something to serve, under names of its own.
void CheckModels(const Config& config) {
  if (config.models.empty() && config.model_repository.empty()) {
    throw CLI::RequiredError("--model or --model-repository");
  }
  std::vector<std::string> in_repository;
  if (!config.model_repository.empty()) {
    absl::StatusOr<std::vector<std::string>> names =
        RepositoryDirectory(config.model_repository, {}).Names();
    ThrowUnlessOk("--model-repository", names.status());
    in_repository = *std::move(names);
  }
  for (const ModelSpec& model : config.models) {
    ThrowUnlessOk("--model", CheckModelName(model.name));
    if (!std::binary_search(in_repository.begin(), in_repository.end(), model.name)) continue;
    throw CLI::ValidationError("--model", absl::StrCat("the model repository has a model '",
                                                       model.name, "' too, use NAME=DIR"));
  }
}

// Whether only this machine can connect to HOST:PORT.
bool IsLocal(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const std::string host = address.substr(0, address.rfind(':'));
  in_addr ip = {};
  if (inet_pton(AF_INET, host.c_str(), &ip) == 1) return ntohl(ip.s_addr) >> 24 == 127;
  return host == "localhost" || host == "[::1]";
}

// Which option's file `status` names.
const char* TlsOption(const TlsFiles& tls, const absl::Status& status) {
  if (absl::StartsWith(status.message(), tls.cert.string() + ":")) return "--tls-cert";
  if (absl::StartsWith(status.message(), tls.key.string() + ":")) return "--tls-key";
  return "--tls-client-ca";
}

// Throws CLI::ValidationError if clients could not connect, or tokens could be overheard.
void CheckSecurity(const Config& config) {
  const bool has_cert = !config.tls.cert.empty();
  if (has_cert != !config.tls.key.empty()) {
    throw CLI::ValidationError(has_cert ? "--tls-cert" : "--tls-key",
                               "allowed are --tls-cert and --tls-key together, or neither");
  }
  if (has_cert) {
    const absl::Status status = ReadTlsFiles(config.tls).status();
    ThrowUnlessOk(TlsOption(config.tls, status), status);
  } else if (!config.tls.client_ca.empty()) {
    throw CLI::ValidationError("--tls-client-ca", "needs --tls-cert and --tls-key");
  }
  if (config.auth_tokens.empty()) return;
  ThrowUnlessOk("--auth-tokens", ReadTokenFile(config.auth_tokens).status());
  if (has_cert || config.auth_without_tls || IsLocal(config.address)) return;
  throw CLI::ValidationError(
      "--auth-tokens",
      absl::StrCat(
          "tokens sent to ", config.address,
          " could be overheard, allowed are --tls-cert and --tls-key, an --address of this "
          "machine such as 127.0.0.1:8001, or --auth-without-tls"));
}

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// What CLI11 says of a name in a file that is no option ends with the name.
constexpr char kUnknownName[] = "INI was not able to parse ";

// Whether `message` is about the value that line `key = ...` of a file gives.
bool IsAbout(const std::string& message, const std::string& key,
             const std::vector<std::string>& arguments) {
  if (message == kUnknownName + key) return true;
  const std::string option = "--" + key;
  auto gives = [&option](const std::string& argument) {
    return argument == option || absl::StartsWith(argument, option + "=");
  };
  return absl::StartsWith(message, option + ":") &&
         std::none_of(arguments.begin(), arguments.end(), gives);
}

// `message`, after "FILE:LINE: " if the line of that file is what it is about.
std::string WithPlace(const std::string& file, const std::vector<std::string>& arguments,
                      std::string message) {
  std::ifstream lines(file);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const std::string key(absl::StripAsciiWhitespace(line.substr(0, line.find('='))));
    if (key.empty() || !IsAbout(message, key, arguments)) continue;
    if (message == kUnknownName + key) message = absl::StrCat("'", key, "' is no option");
    return absl::StrCat(file, ":", number, ": ", message);
  }
  return absl::StartsWith(message, kUnknownName) ? absl::StrCat(file, ": ", message) : message;
}

}  // namespace

ParsedConfig ParseConfig(int argc, const char* const* argv) {
  constexpr int kBadUsage = 2;
  Config config;
  TextValues text;
  CLI::App app("Serves EVA-attention models over gRPC.", "evaserve");
  DeclareOptions(app, config, text);
  try {
    app.parse(argc, argv);
    ReadTextValues(text, config);
    CheckModels(config);
    CheckSecurity(config);
  } catch (const CLI::CallForHelp&) {
    return {.message = app.help()};
  } catch (const CLI::CallForVersion&) {
    return {.message = app.version() + "\n"};
  } catch (const CLI::Error& error) {
    return {.exit_code = kBadUsage,
            .message = absl::StrCat("evaserve: ",
                                    WithPlace(app.get_config_ptr()->as<std::string>(),
                                              {argv, argv + argc}, OneLine(error.what())),
                                    "\n")};
  }
  return {.config = std::move(config)};
}

std::vector<OptionName> OptionNames() {
  Config config;
  TextValues text;
  CLI::App app;
  DeclareOptions(app, config, text);
  std::vector<OptionName> names;
  for (const CLI::Option* option : app.get_options()) {
    names.push_back({"--" + option->get_lnames().front(), option->get_envname()});
  }
  return names;
}

}  // namespace evaserve

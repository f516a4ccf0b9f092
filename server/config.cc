#include "server/config.h"

#include <arpa/inet.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/address.h"
#include "server/config_options.h"
#include "server/engine/durations.h"
#include "server/metrics/metrics_server.h"
#include "server/option_help.h"
#include "server/rpc/authorizer.h"
#include "server/small_file.h"

namespace evaserve {
namespace {

const std::map<std::string, ControlMode> kControlModes{{"none", ControlMode::kNone},
                                                       {"poll", ControlMode::kPoll},
                                                       {"explicit", ControlMode::kExplicit}};

const std::map<std::string, std::optional<DType>> kDTypes{{"auto", std::nullopt},
                                                          {"float32", DType::kFloat32},
                                                          {"bfloat16", DType::kBFloat16},
                                                          {"float16", DType::kFloat16}};

// Throws CLI::ValidationError, like the checks of config_options.cc.
ModelSpec ParseModel(const std::string& text) {
  ModelSpec spec;
  const size_t equals = text.find('=');
  if (text.empty()) {
    // Refused below.
  } else if (equals == std::string::npos) {
    // "dir/" has an empty last component.
    spec.directory = text;
    const auto clean = (spec.directory / "").parent_path();
    std::error_code error;  // if there is no working directory
    const auto absolute = std::filesystem::absolute(clean, error);
    spec.name = (error ? clean : absolute).lexically_normal().filename().string();
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
  config.torch_library = text.torch_library;
  config.repository_poll = std::chrono::seconds(text.repository_poll_s);
  config.max_connection_age = std::chrono::seconds(text.max_connection_age_s);
  config.max_connection_age_grace = std::chrono::seconds(text.max_connection_age_grace_s);
  config.max_queue_time = MillisecondsOf(text.max_queue_s);
  if (text.overload_status == "unavailable") config.overload_status = OverloadStatus::kUnavailable;
  config.max_request_time = MillisecondsOf(text.max_request_s);
  config.max_piece_wait = MillisecondsOf(text.max_piece_wait_s);
  config.step_timeout = MillisecondsOf(text.step_timeout_s);
  config.drain_pause = MillisecondsOf(text.drain_pause_s);
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

// Throws CLI::ValidationError for what would have no effect.
void CheckControl(const Config& config) {
  const bool has_repository = !config.model_repository.empty();
  if (config.model_control_mode == ControlMode::kPoll && !has_repository) {
    throw CLI::ValidationError("--model-control-mode",
                               "poll follows a directory, it needs --model-repository");
  }
  const bool is_explicit = config.model_control_mode == ControlMode::kExplicit;
  if (config.load_models.empty() || (is_explicit && has_repository)) return;
  throw CLI::ValidationError(
      "--load-model",
      "needs --model-repository and --model-control-mode=explicit; in the other modes all models "
      "are loaded");
}

// Whether only this machine can connect to HOST:PORT.
bool IsLocal(const std::string& address) {
  const std::string host = ParseAddress(address)->host;
  in_addr ip = {};
  if (inet_pton(AF_INET, host.c_str(), &ip) == 1) return ntohl(ip.s_addr) >> 24 == 127;
  return host == "localhost" || host == "::1";
}

void CheckAddresses(const Config& config) {
  ThrowUnlessOk("--address", ParseAddress(config.address).status());
  if (config.metrics_address.empty()) return;
  ThrowUnlessOk("--metrics-address", MetricsServer::CheckAddress(config.metrics_address));
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

// Whether `message` is about the section that `line`, "[NAME]", of a file begins.
bool IsAboutSection(const std::string& message, const std::string& line) {
  return line.size() > 2 && line.front() == '[' && line.back() == ']' &&
         absl::StartsWith(message, kUnknownName + line.substr(1, line.size() - 2) + ".");
}

// `message`, after "FILE:LINE: " if the line of that file is what it is about.
std::string WithPlace(const std::string& file, const std::vector<std::string>& arguments,
                      std::string message) {
  std::ifstream lines(file);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const std::string key(absl::StripAsciiWhitespace(line.substr(0, line.find('='))));
    if (IsAboutSection(message, key)) {
      return absl::StrCat(file, ":", number, ": got the section '", key,
                          "', allowed are lines NAME=VALUE without sections");
    }
    if (key.empty() || !IsAbout(message, key, arguments)) continue;
    if (message == kUnknownName + key) message = absl::StrCat("'", key, "' is no option");
    return absl::StrCat(file, ":", number, ": ", message);
  }
  return absl::StartsWith(message, kUnknownName) ? absl::StrCat(file, ": ", message) : message;
}

// "FILE: why", of one that CLI11 could not read.
std::string WhyUnreadable(const std::string& file) {
  const absl::Status status = ReadSmallFile(file).status();
  return status.ok() ? absl::StrCat(file, ": is no file") : std::string(status.message());
}

}  // namespace

ParsedConfig ParseConfig(int argc, const char* const* argv) {
  constexpr int kBadUsage = 2;
  Config config;
  TextValues text;
  CLI::App app("Serves EVA-attention models over gRPC.", "evaserve");
  app.formatter(std::make_shared<HelpFormatter>());
  DeclareOptions(app, config, text);
  try {
    app.parse(argc, argv);
    ReadTextValues(text, config);
    CheckModels(config);
    CheckControl(config);
    CheckAddresses(config);
    CheckSecurity(config);
  } catch (const CLI::CallForHelp&) {
    return {.message = app.help()};
  } catch (const CLI::CallForVersion&) {
    return {.message = app.version() + "\n"};
  } catch (const CLI::FileError&) {
    const auto file = app.get_config_ptr()->as<std::string>();
    return {.exit_code = kBadUsage,
            .message = absl::StrCat("evaserve: --config: ", WhyUnreadable(file), "\n")};
  } catch (const CLI::Error& error) {
    return {.exit_code = kBadUsage,
            .message = absl::StrCat("evaserve: ",
                                    WithPlace(app.get_config_ptr()->as<std::string>(),
                                              {argv, argv + argc}, OneLine(error.what())),
                                    "\n")};
  }
  return {.config = std::move(config)};
}

}  // namespace evaserve

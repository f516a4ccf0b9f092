#include "server/config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <map>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// How the values look that CLI11 has no type for.
struct TextValues {
  std::vector<std::string> models;
  std::string device = "auto";
  std::string dtype = "auto";
  int64_t drain_timeout_s = 0;
  std::string log_level = "info";
  std::string log_format = "text";
};

const std::map<std::string, std::optional<DType>> kDTypes{{"auto", std::nullopt},
                                                          {"float32", DType::kFloat32},
                                                          {"bfloat16", DType::kBFloat16},
                                                          {"float16", DType::kFloat16}};

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

void DeclareOptions(CLI::App& app, Config& config, TextValues& text) {
  text.drain_timeout_s = config.drain_timeout.count();

  Add(app, "model", text.models, "Model to serve: DIR or NAME=DIR; may be repeated")
      ->delimiter(',')
      ->required();
  Add(app, "address", config.address, "HOST:PORT for gRPC; port 0 takes a free one");
  Add(app, "metrics-address", config.metrics_address,
      "HOST:PORT for /metrics, /healthz and /readyz; empty or \"off\": none");
  Add(app, "threads", config.threads, "Threads for each model's kernels; 0: one a core")
      ->check(CLI::Range(0, 1024));
  Add(app, "device", text.device,
      "Where models run: cpu, cuda:N, or auto: the first CUDA device that takes the model, else "
      "cpu")
      ->check(IsDevice);
  Add(app, "dtype", text.dtype,
      "Weights: auto (config.json decides), float32, bfloat16 or float16 (GPU only)")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}));
  Add(app, "state-memory-mb", config.state_memory_mb, "Memory for each model's sequences, MiB")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  Add(app, "max-batch-tokens", config.max_batch_tokens, "Tokens in one step")
      ->check(CLI::Range(1, 1 << 20));
  Add(app, "max-running", config.max_running, "Sequences that run at the same time")
      ->check(CLI::Range(1, 1 << 16));
  Add(app, "max-waiting", config.max_waiting, "Sequences that wait; more are refused")
      ->check(CLI::Range(1, 1 << 20));
  Add(app, "max-message-mb", config.max_message_mb, "Largest gRPC message, MiB")
      ->check(CLI::Range(1, 2047));
  Add(app, "drain-timeout-s", text.drain_timeout_s,
      "Seconds that requests in flight may go on after SIGTERM")
      ->check(CLI::Range(0, 3600));
  Add(app, "log-level", text.log_level, "trace, debug, info, warning, error or off")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}));
  Add(app, "log-format", text.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  app.set_config("--config", "", "File with any of these options, one NAME=VALUE a line")
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
  // An empty value cannot be written as --metrics-address=.
  if (config.metrics_address == "off") config.metrics_address.clear();
  config.device = *ParseDevice(text.device);
  config.dtype = kDTypes.at(text.dtype);
  config.drain_timeout = std::chrono::seconds(text.drain_timeout_s);
  config.log_level = spdlog::level::from_str(text.log_level);
  config.log_format = text.log_format == "json" ? LogFormat::kJson : LogFormat::kText;
}

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
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
  } catch (const CLI::CallForHelp&) {
    return {.message = app.help()};
  } catch (const CLI::CallForVersion&) {
    return {.message = app.version() + "\n"};
  } catch (const CLI::Error& error) {
    return {.exit_code = kBadUsage,
            .message = absl::StrCat("evaserve: ", OneLine(error.what()), "\n")};
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

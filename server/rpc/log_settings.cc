#include "server/rpc/log_settings.h"

#include <string>

#include "server/log.h"
#include "server/rpc/quoted.h"
#include "server/rpc/refuse.h"

namespace evaserve {
namespace {

using Value = inference::LogSettingsRequest::SettingValue;

// As the protocol sees a level: which kinds of lines are written.
struct Switches {
  bool info = false, warning = false, error = false;
  uint32_t verbose = 0;  // 1: debug, more: trace
};

Switches SwitchesOf(spdlog::level::level_enum level) {
  return {.info = level <= spdlog::level::info,
          .warning = level <= spdlog::level::warn,
          .error = level <= spdlog::level::err,
          .verbose = level <= spdlog::level::trace   ? 2u
                     : level <= spdlog::level::debug ? 1u
                                                     : 0u};
}

// The level that writes all that is asked for.
spdlog::level::level_enum LevelOf(const Switches& switches) {
  if (switches.verbose > 0) {
    return switches.verbose > 1 ? spdlog::level::trace : spdlog::level::debug;
  }
  if (switches.info) return spdlog::level::info;
  if (switches.warning) return spdlog::level::warn;
  return switches.error ? spdlog::level::err : spdlog::level::off;
}

absl::Status RefuseSetting(const std::string& name, const char* allowed) {
  return Refuse("settings: ", Quoted(name), ": allowed is ", allowed);
}

absl::Status Set(const std::string& name, const Value& value, Switches& switches) {
  const std::pair<const char*, bool Switches::*> kinds[] = {{"log_info", &Switches::info},
                                                            {"log_warning", &Switches::warning},
                                                            {"log_error", &Switches::error}};
  for (const auto& [kind, member] : kinds) {
    if (name != kind) continue;
    if (!value.has_bool_param()) return RefuseSetting(name, "a bool");
    switches.*member = value.bool_param();
    return absl::OkStatus();
  }
  if (name == "log_verbose_level") {
    if (!value.has_uint32_param()) return RefuseSetting(name, "an unsigned integer");
    switches.verbose = value.uint32_param();
    return absl::OkStatus();
  }
  if (name == "log_file" || name == "log_format") {
    return RefuseSetting(name, "what the server was started with: it cannot be changed");
  }
  return RefuseSetting(name, "log_info, log_warning, log_error or log_verbose_level instead");
}

}  // namespace

absl::Status ApplyLogSettings(const inference::LogSettingsRequest& request) {
  Switches switches = SwitchesOf(LogLevel());
  for (const auto& [name, value] : request.settings()) {
    if (absl::Status status = Set(name, value, switches); !status.ok()) return status;
  }
  if (!request.settings().empty()) SetLogLevel(LevelOf(switches));
  return absl::OkStatus();
}

void FillLogSettings(inference::LogSettingsResponse& response) {
  const Switches switches = SwitchesOf(LogLevel());
  auto& settings = *response.mutable_settings();
  settings["log_file"].set_string_param("");
  settings["log_format"].set_string_param(CurrentLogFormat() == LogFormat::kJson ? "json" : "text");
  settings["log_info"].set_bool_param(switches.info);
  settings["log_warning"].set_bool_param(switches.warning);
  settings["log_error"].set_bool_param(switches.error);
  settings["log_verbose_level"].set_uint32_param(switches.verbose);
}

}  // namespace evaserve

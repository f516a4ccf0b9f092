#pragma once

#include <spdlog/common.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace evaserve {

enum class LogFormat {
  kText,  // 2025-01-31T12:00:00.000Z info message key=value
  kJson,  // one JSON object a line: time, level, message and the fields
};

// Sends the log to standard error in `format`. Call once, before other threads log; without it
// spdlog's own format is used.
void SetUpLogging(spdlog::level::level_enum level, LogFormat format);

// What is logged may change at any time. Thread-safe.
void SetLogLevel(spdlog::level::level_enum level);
spdlog::level::level_enum LogLevel();
LogFormat CurrentLogFormat();

// Logs `message` with `fields`, an object of numbers, strings and booleans. Any bytes are allowed
// in a string; what is not UTF-8 is replaced. Thread-safe.
void LogEvent(spdlog::level::level_enum level, std::string_view message,
              const nlohmann::ordered_json& fields);

// `message` and `fields` as one line of `format`, without time and level.
std::string FormatEvent(LogFormat format, std::string_view message,
                        const nlohmann::ordered_json& fields);

}  // namespace evaserve

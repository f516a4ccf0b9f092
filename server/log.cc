#include "server/log.h"

#include <spdlog/details/log_msg.h>
#include <spdlog/fmt/chrono.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

namespace evaserve {
namespace {

using Json = nlohmann::ordered_json;

// The logger whose payload is a finished JSON object's members.
constexpr char kEventLogger[] = "event";

std::atomic<LogFormat> log_format{LogFormat::kText};

std::string Dump(const Json& value) {
  constexpr bool kEscapeAllButAscii = true;  // some terminals obey characters beyond it too
  return value.dump(-1, ' ', kEscapeAllButAscii, Json::error_handler_t::replace);
}

bool IsPlain(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '=';
  });
}

// One line that no terminal obeys, whatever other people's code has put into it.
std::string Plain(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    if (c >= ' ' && c < 0x7f) {
      plain += c;
    } else {
      plain += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return plain;
}

std::string UtcTime(spdlog::log_clock::time_point time) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch());
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(spdlog::log_clock::to_time_t(time)),
                     ms.count() % 1000);
}

class LineFormatter : public spdlog::formatter {
 public:
  explicit LineFormatter(LogFormat format) : format_(format) {}

  void format(const spdlog::details::log_msg& msg, spdlog::memory_buf_t& dest) override {
    const std::string_view payload(msg.payload.data(), msg.payload.size());
    const auto level = spdlog::level::to_string_view(msg.level);
    const std::string_view level_name(level.data(), level.size());
    const bool is_event = std::string_view(msg.logger_name.data(), msg.logger_name.size()) ==
                          std::string_view(kEventLogger);
    if (format_ == LogFormat::kText) {
      fmt::format_to(std::back_inserter(dest), "{} {} {}\n", UtcTime(msg.time), level_name,
                     is_event ? std::string(payload) : Plain(payload));
      return;
    }
    const std::string members =
        is_event ? std::string(payload) : FormatEvent(LogFormat::kJson, payload, Json::object());
    fmt::format_to(std::back_inserter(dest), "{{\"time\":\"{}\",\"level\":\"{}\",{}}}\n",
                   UtcTime(msg.time), level_name, members);
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<LineFormatter>(format_);
  }

 private:
  const LogFormat format_;
};

}  // namespace

void SetUpLogging(spdlog::level::level_enum level, LogFormat format) {
  log_format = format;
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto main_logger = std::make_shared<spdlog::logger>("evaserve", sink);
  auto event_logger = std::make_shared<spdlog::logger>(kEventLogger, sink);
  for (const auto& logger : {main_logger, event_logger}) {
    logger->set_formatter(std::make_unique<LineFormatter>(format));
    logger->set_level(level);
  }
  spdlog::drop(kEventLogger);
  spdlog::register_logger(event_logger);
  spdlog::set_default_logger(main_logger);
}

void SetLogLevel(spdlog::level::level_enum level) {
  spdlog::default_logger()->set_level(level);
  if (const auto events = spdlog::get(kEventLogger)) events->set_level(level);
}

spdlog::level::level_enum LogLevel() { return spdlog::default_logger()->level(); }

LogFormat CurrentLogFormat() { return log_format; }

std::string FormatEvent(LogFormat format, std::string_view message, const Json& fields) {
  if (format == LogFormat::kJson) {
    std::string line = fmt::format("\"message\":{}", Dump(Json(std::string(message))));
    const std::string members = Dump(fields);  // in braces
    if (!fields.empty()) line.append(",").append(members, 1, members.size() - 2);
    return line;
  }
  std::string line(message);
  for (const auto& [key, value] : fields.items()) {
    const bool plain = value.is_string() && IsPlain(value.get_ref<const std::string&>());
    line += fmt::format(" {}={}", key, plain ? value.get<std::string>() : Dump(value));
  }
  return line;
}

void LogEvent(spdlog::level::level_enum level, std::string_view message, const Json& fields) {
  std::shared_ptr<spdlog::logger> logger = spdlog::get(kEventLogger);
  if (logger == nullptr) logger = spdlog::default_logger();
  if (!logger->should_log(level)) return;
  logger->log(level, "{}", FormatEvent(log_format, message, fields));
}

}  // namespace evaserve

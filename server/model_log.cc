#include "server/model_log.h"

#include <spdlog/spdlog.h>

#include "absl/strings/str_join.h"
#include "server/log.h"

namespace evaserve {
namespace {

void AddInfo(const ReadyModel& ready, nlohmann::ordered_json& fields) {
  if (ready.tensors != nullptr) {
    fields["device"] = ready.tensors->info().device;
    fields["weights_mb"] = ready.tensors->info().weight_bytes >> 20;
    return;
  }
  const ModelInfo& info = ready.engine->info();
  fields["device"] = info.device;
  fields["dtype"] = std::string(Name(info.dtype));
  fields["weights_mb"] = info.weight_bytes >> 20;
}

}  // namespace

void LogModel(const ModelStatus& status, const absl::StatusOr<ReadyModel>& ready) {
  nlohmann::ordered_json fields{{"model", status.name}, {"version", status.version}};
  if (!status.reason.empty()) fields["reason"] = status.reason;
  if (status.state == ModelState::kReady && ready.ok()) {
    AddInfo(*ready, fields);
  }
  switch (status.state) {
    case ModelState::kLoading:
      return LogEvent(spdlog::level::debug, "loading", fields);
    case ModelState::kReady:
      if (status.reason.empty()) return LogEvent(spdlog::level::info, "loaded", fields);
      return LogEvent(spdlog::level::err, "kept the model as it was", fields);
    case ModelState::kUnloading:
      return LogEvent(spdlog::level::info, "unloading", fields);
    case ModelState::kUnavailable:
      const bool was_asked_for = status.reason == kUnloadedReason;
      return LogEvent(was_asked_for ? spdlog::level::info : spdlog::level::err,
                      was_asked_for ? "unloaded" : "cannot load", fields);
  }
}

void LogIgnored(const std::string& model, const std::vector<std::string>& directories) {
  LogEvent(spdlog::level::warn, "not the number of a version, ignored",
           {{"model", model}, {"directories", absl::StrJoin(directories, ", ")}});
}

}  // namespace evaserve

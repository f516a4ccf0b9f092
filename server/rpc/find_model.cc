#include "server/rpc/find_model.h"

#include <cstdint>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/quoted.h"

namespace evaserve {

namespace {

// 0 for an empty one.
absl::StatusOr<int64_t> ParseVersion(const std::string& version) {
  int64_t number = 0;
  if (version.empty() || (absl::SimpleAtoi(version, &number) && number > 0)) return number;
  return absl::InvalidArgumentError(absl::StrCat("model_version: got '", Quoted(version),
                                                 "', allowed is a number from 1 on, or nothing"));
}

}  // namespace

absl::StatusOr<ReadyModel> FindModel(const ModelRepository& models, const Caller& caller,
                                     const std::string& name, const std::string& version) {
  if (absl::Status status = name.empty() ? caller.CheckKnown() : caller.CheckModel(name);
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<int64_t> number = ParseVersion(version);
  if (!number.ok()) return number.status();
  return models.Find(name, *number,
                     [&caller](std::string_view model) { return caller.MayUse(model); });
}

absl::StatusOr<ReadyModel> FindModel(const ModelRepository& models, RequestScope& scope,
                                     const std::string& name, const std::string& version) {
  if (models.Knows(name)) scope.model = name;
  absl::StatusOr<ReadyModel> found = FindModel(models, scope.caller(), name, version);
  if (found.ok()) {
    scope.model = found->name;
    scope.version = found->version;
  }
  return found;
}

absl::StatusOr<ReadyModel> FindTextModel(const ModelRepository& models, RequestScope& scope,
                                         const std::string& name) {
  absl::StatusOr<ReadyModel> found = FindModel(models, scope, name);
  if (!found.ok() || found->engine != nullptr) return found;
  return absl::UnimplementedError(
      absl::StrCat("model \"", found->name,
                   "\" takes tensors (ModelInfer), it has no text to continue, score or embed"));
}

}  // namespace evaserve

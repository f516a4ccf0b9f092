#include "server/rpc/find_model.h"

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace evaserve {

namespace {

absl::Status CheckVersion(const std::string& model, const std::string& version) {
  if (version.empty() || version == kModelVersion) return absl::OkStatus();
  int64_t number = 0;
  if (!absl::SimpleAtoi(version, &number)) {
    return absl::InvalidArgumentError(absl::StrCat("model_version: got '", version.substr(0, 64),
                                                   "', allowed is an integer or nothing"));
  }
  return absl::NotFoundError(
      absl::StrCat("model '", model, "' has no version ", version, ", there is: ", kModelVersion));
}

}  // namespace

absl::StatusOr<FoundModel> FindModel(const ModelRepository& models, const std::string& name,
                                     const std::string& version) {
  absl::StatusOr<std::shared_ptr<Engine>> engine = models.Find(name);
  if (!engine.ok()) return engine.status();
  FoundModel found{name, *std::move(engine)};
  // Found without a name: there is only one.
  if (name.empty()) found.name = models.List().front().name;
  if (absl::Status status = CheckVersion(found.name, version); !status.ok()) return status;
  return found;
}

}  // namespace evaserve

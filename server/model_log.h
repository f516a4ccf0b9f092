#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/repository/model_repository.h"

namespace evaserve {

// The log's line about a change of a model. `ready` is it, if requests can reach it.
void LogModel(const ModelStatus& status, const absl::StatusOr<ReadyModel>& ready);

// The log's line about directories beside a model's versions whose names are no numbers.
void LogIgnored(const std::string& model, const std::vector<std::string>& directories);

}  // namespace evaserve

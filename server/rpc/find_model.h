#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/repository/model_repository.h"

namespace evaserve {

// The version of every model; there are no others.
inline constexpr char kModelVersion[] = "1";

struct FoundModel {
  std::string name;
  std::shared_ptr<Engine> engine;
};

// ModelRepository::Find(), and what an empty `name` stands for. Also: InvalidArgument unless
// `version` is empty or an integer, NotFound unless it is kModelVersion.
absl::StatusOr<FoundModel> FindModel(const ModelRepository& models, const std::string& name,
                                     const std::string& version = "");

}  // namespace evaserve

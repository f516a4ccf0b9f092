#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/repository/model_repository.h"
#include "server/rpc/caller.h"
#include "server/rpc/request_log.h"

namespace evaserve {

// ModelRepository::Find() among those that `caller` may use; an empty version means the highest
// that is ready. Also: PermissionDenied if `caller` may not use the model, whether there is one or
// not; InvalidArgument unless `version` is empty or a number from 1 on.
absl::StatusOr<ReadyModel> FindModel(const ModelRepository& models, const Caller& caller,
                                     const std::string& name, const std::string& version = "");

// Likewise for the request of `scope`, which learns the model if the repository knows it, ready or
// not, and the version if it is found.
absl::StatusOr<ReadyModel> FindModel(const ModelRepository& models, RequestScope& scope,
                                     const std::string& name, const std::string& version = "");

// Likewise one that takes sequences of tokens; Unimplemented for one that takes tensors.
absl::StatusOr<ReadyModel> FindTextModel(const ModelRepository& models, RequestScope& scope,
                                         const std::string& name);

}  // namespace evaserve

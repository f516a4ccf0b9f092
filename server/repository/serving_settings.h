#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/model.h"
#include "nlohmann/json.hpp"
#include "server/engine/engine.h"

namespace evaserve {

// How one model is served: what the server was started with, and what its serving.json says
// instead. docs/models.md lists the keys.
struct ServingSettings {
  EngineOptions engine;
  LoadOptions load;
  int num_threads = 1;  // for the model's kernels
  // Tokens that a new model is fed before it is ready, so that the first request finds kernels
  // loaded and memory touched; 0: none.
  int warmup_tokens = 64;
};

// Which of a model's numbered versions are served.
struct VersionPolicy {
  int num_latest = 1;             // so many with the highest numbers; 0: all
  std::vector<int64_t> specific;  // if not empty: these
};

// `defaults`, changed as `json` says; `where` names its file. InvalidArgument, naming the key, the
// value and what is allowed, for an unknown key or a bad value.
absl::StatusOr<ServingSettings> ParseServingSettings(const nlohmann::json& json,
                                                     const std::string& where,
                                                     ServingSettings defaults);

absl::StatusOr<VersionPolicy> ParseVersionPolicy(const nlohmann::json& json,
                                                 const std::string& where);

// Every key that serving.json may have.
std::vector<std::string> ServingKeys();

}  // namespace evaserve

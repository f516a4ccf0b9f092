#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/serial_worker_pool.h"
#include "models/testing/random_weights.h"
#include "models/testing/status_matchers.h"
#include "models/vision/vision_model.h"

namespace evaserve {

// A checkpoint and a config of which one is not of the other.
struct Misfit {
  const char* name;
  std::function<void(nlohmann::json& json)> change;  // of a config that fits
  const char* tensor;                                // that the config then has no place for
  const char* key;
};

// That `load` takes `weights` with `config`, and refuses them with the misfit's tensor and config
// by tensor and key.
template <typename Load>
void ExpectRefused(const Misfit& misfit, nlohmann::json config, RandomWeights weights, Load load) {
  SerialWorkerPool workers;
  const TempDir directory;
  const auto error_of = [&](const nlohmann::json& json) {
    weights.Write(directory.path(), {});
    return load(directory.path(), json, LoadOptions(), workers).status();
  };
  EXPECT_TRUE(error_of(config).ok()) << error_of(config);
  misfit.change(config);
  if (!weights.contains(misfit.tensor)) weights.Add(misfit.tensor, {16}, 1.f);
  EXPECT_THAT(error_of(config), IsError(absl::StatusCode::kInvalidArgument, "model.safetensors",
                                        misfit.tensor, misfit.key));
}

}  // namespace evaserve

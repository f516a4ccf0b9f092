#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "models/io/safetensors.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// The folder of reference outputs: EVASERVE_GOLDEN_DIR of the environment, or the build's default.
std::filesystem::path GoldenDir();

// A JSON file of that folder; aborts if there is none.
nlohmann::json GoldenJson(const std::filesystem::path& path);

// A model directory with its reference cases.
struct GoldenModel {
  std::filesystem::path directory;
  nlohmann::json cases;  // the list of cases.json
  Safetensors tensors;   // cases.safetensors
};

// Every directory whose config.json has this model_type, found by listing the folder.
std::vector<GoldenModel> GoldenModels(const std::string& model_type);

// The tensor `name`, which is there and of this type; aborts otherwise.
std::span<const float> GoldenFloats(const Safetensors& file, const std::string& name);
// The largest difference, infinite if the sizes differ or something is NaN.
double MaxError(std::span<const float> actual, std::span<const float> expected);

std::span<const int32_t> GoldenInts(const Safetensors& file, const std::string& name);

}  // namespace evaserve

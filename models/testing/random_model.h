#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "models/evabyte/config.h"
#include "models/testing/safetensors_writer.h"
#include "nlohmann/json.hpp"

namespace evaserve {

// A small model for tests: a few dozen tokens fill several windows.
EvaByteConfig TinyConfig();

// The size that our figures are given for: 5.1 million parameters.
EvaByteConfig SizeSConfig();

// The contents of config.json.
nlohmann::json ConfigJson(const EvaByteConfig& config);

// Every tensor of such a model in config.dtype. The weights are random, of a size that makes logits
// differ by a few units; the same seed gives the same ones.
std::vector<TensorData> RandomTensors(const EvaByteConfig& config, uint64_t seed = 1);

// Writes a model directory that LoadModel() loads.
void WriteRandomModel(const std::filesystem::path& directory, const EvaByteConfig& config,
                      uint64_t seed = 1);

}  // namespace evaserve

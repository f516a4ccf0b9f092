#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "models/testing/safetensors_writer.h"
#include "models/testing/temp_dir.h"
#include "nlohmann/json.hpp"

namespace evaserve {

struct RandomTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// Random float32 tensors by name; the same calls give the same values.
class RandomWeights : public std::map<std::string, RandomTensor> {
 public:
  void Add(const std::string& name, std::vector<int64_t> shape, float deviation, float mean = 0) {
    int64_t count = 1;
    for (int64_t n : shape) count *= n;
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float> values(count);
    std::ranges::generate(values, [&] { return normal(random_); });
    insert_or_assign(name, RandomTensor{std::move(shape), std::move(values)});
  }

  void AddLinear(const std::string& prefix, int64_t out, int64_t in) {
    Add(prefix + "weight", {out, in}, 1.f / std::sqrt(static_cast<float>(in)));
    Add(prefix + "bias", {out}, 0.3f);
  }

  void AddNorm(const std::string& prefix, int64_t size) {
    Add(prefix + "weight", {size}, 0.2f, 1.f);
    Add(prefix + "bias", {size}, 0.2f);
  }

  // Writes a model directory with these tensors and this config.json.
  void Write(const std::filesystem::path& directory, const nlohmann::json& json) const {
    std::vector<TensorData> tensors;
    for (const auto& [name, tensor] : *this) {
      tensors.push_back(MakeTensor(name, tensor.shape, tensor.values, DType::kFloat32));
    }
    WriteFile(directory / "config.json", json.dump(2));
    WriteFile(directory / "model.safetensors", SafetensorsFile(tensors));
  }

 private:
  std::mt19937_64 random_{1};
};

}  // namespace evaserve

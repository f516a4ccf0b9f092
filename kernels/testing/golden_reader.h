#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace evaserve {

// Where the golden files are: EVASERVE_GOLDEN_DIR, or else the folder beside the repository.
inline std::filesystem::path GoldenDir() {
  const char* dir = std::getenv("EVASERVE_GOLDEN_DIR");
  return dir != nullptr ? dir : EVASERVE_DEFAULT_GOLDEN_DIR;
}

// A stored tensor, F32, I32 or U8, as doubles (which hold each of them exactly).
struct GoldenTensor {
  std::vector<int64_t> shape;
  std::vector<double> values;  // row-major

  std::vector<float> floats() const { return {values.begin(), values.end()}; }
  std::vector<uint8_t> bytes() const { return {values.begin(), values.end()}; }
};

// The pair of files `name`.json and `name`.safetensors. For tests: throws on a broken file.
class GoldenFile {
 public:
  explicit GoldenFile(const std::string& name) {
    std::ifstream json(GoldenDir() / (name + ".json"));
    info_ = nlohmann::json::parse(json);
    std::ifstream file(GoldenDir() / (name + ".safetensors"), std::ios::binary);
    uint64_t size = 0;
    file.read(reinterpret_cast<char*>(&size), sizeof size);
    std::string header(size, '\0');
    file.read(header.data(), static_cast<std::streamsize>(size));
    header_ = nlohmann::json::parse(header);
    data_.assign(std::istreambuf_iterator<char>(file), {});
  }

  static bool Exists(const std::string& name) {
    return std::filesystem::exists(GoldenDir() / (name + ".json"));
  }

  const nlohmann::json& cases() const { return info_.at("cases"); }

  bool Has(const std::string& key) const { return header_.contains(key); }

  GoldenTensor Get(const std::string& key) const {
    const nlohmann::json& entry = header_.at(key);
    const std::string dtype = entry.at("dtype");
    const char* data = data_.data() + entry.at("data_offsets")[0].get<size_t>();
    GoldenTensor tensor;
    tensor.shape = entry.at("shape").get<std::vector<int64_t>>();
    const int64_t count = std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1},
                                          std::multiplies<int64_t>());
    for (int64_t i = 0; i < count; ++i) tensor.values.push_back(Element(data, dtype, i));
    return tensor;
  }

 private:
  template <typename T>
  static double As(const char* data, int64_t i) {
    T value;
    std::memcpy(&value, data + i * sizeof(T), sizeof(T));
    return static_cast<double>(value);
  }
  static double Element(const char* data, const std::string& dtype, int64_t i) {
    if (dtype == "F32") return As<float>(data, i);
    if (dtype == "I32") return As<int32_t>(data, i);
    if (dtype == "U8") return As<uint8_t>(data, i);
    throw std::runtime_error("no such golden type: " + dtype);
  }

  nlohmann::json info_;
  nlohmann::json header_;
  std::vector<char> data_;
};

}  // namespace evaserve

#include "models/testing/golden.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "models/io/json_file.h"

namespace evaserve {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "golden data: %s\n", message.c_str());
  std::abort();
}

template <typename T>
std::span<const T> Values(const Safetensors& file, const std::string& name, const char* dtype) {
  const TensorView* tensor = file.Find(name);
  if (tensor == nullptr || tensor->dtype != dtype) {
    Die(file.path().string() + ": no " + dtype + " tensor " + name);
  }
  return {reinterpret_cast<const T*>(tensor->bytes.data()), tensor->bytes.size() / sizeof(T)};
}

}  // namespace

fs::path GoldenDir() {
  const char* directory = std::getenv("EVASERVE_GOLDEN_DIR");
  return directory != nullptr && *directory != '\0' ? directory : EVASERVE_DEFAULT_GOLDEN_DIR;
}

nlohmann::json GoldenJson(const fs::path& path) {
  absl::StatusOr<nlohmann::json> json = ReadJsonObject(path);
  if (!json.ok()) Die(json.status().ToString());
  return *std::move(json);
}

std::vector<GoldenModel> GoldenModels(const std::string& model_type) {
  std::vector<GoldenModel> models;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(GoldenDir(), error)) {
    const fs::path& directory = entry.path();
    if (!fs::exists(directory / "config.json") || !fs::exists(directory / "cases.json")) continue;
    if (GoldenJson(directory / "config.json").value("model_type", "") != model_type) continue;
    absl::StatusOr<Safetensors> tensors = Safetensors::Open(directory / "cases.safetensors");
    if (!tensors.ok()) Die(tensors.status().ToString());
    nlohmann::json cases = GoldenJson(directory / "cases.json").at("cases");
    models.push_back({directory, std::move(cases), *std::move(tensors)});
  }
  if (models.empty()) Die(GoldenDir().string() + " has no model of type " + model_type);
  std::sort(models.begin(), models.end(),
            [](const GoldenModel& a, const GoldenModel& b) { return a.directory < b.directory; });
  return models;
}

std::span<const float> GoldenFloats(const Safetensors& file, const std::string& name) {
  return Values<float>(file, name, "F32");
}

std::span<const int32_t> GoldenInts(const Safetensors& file, const std::string& name) {
  return Values<int32_t>(file, name, "I32");
}

double MaxError(std::span<const float> actual, std::span<const float> expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double error = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(double{actual[i]} - expected[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    error = std::max(error, difference);
  }
  return error;
}

}  // namespace evaserve

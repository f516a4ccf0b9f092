#include "models/eva/layers.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "models/row_blocks.h"

namespace evaserve {

DType ReadComputeType(JsonFields& fields, std::optional<DType> wanted) {
  const std::optional<DType> declared = DTypeFromName(fields.String("torch_dtype", "float32"));
  const std::optional<DType> type = wanted ? wanted : declared;
  if (type == DType::kFloat32 || type == DType::kBFloat16) return *type;
  fields.Fail("torch_dtype", "\"float32\" or \"bfloat16\", here or as an option");
  return DType::kFloat32;
}

void CheckPositions(JsonFields& fields, const char* key, int num_positions, int hidden_size) {
  const int64_t max = kMaxPositionFloats / hidden_size;
  if (num_positions <= max) return;
  fields.Fail(key, absl::StrCat("at most ", max, ", since each has hidden_size, ", hidden_size,
                                ", numbers and their table at most ", kMaxPositionFloats));
}

LinearLayer ReadLinear(TensorReader& reader, const std::string& prefix,
                       const std::vector<int64_t>& shape, DType dtype, bool has_bias) {
  return ReadStackedLinear(reader, {prefix}, shape, dtype, has_bias);
}

LinearLayer ReadStackedLinear(TensorReader& reader, const std::vector<std::string>& prefixes,
                              const std::vector<int64_t>& shape, DType dtype, bool has_bias) {
  LinearLayer layer;
  std::vector<WeightView> weights;
  for (const std::string& prefix : prefixes) {
    weights.push_back(reader.View(prefix + "weight", shape));
    if (!has_bias) continue;
    const std::vector<float> bias = reader.Vector(prefix + "bias", {shape.front()});
    layer.bias.insert(layer.bias.end(), bias.begin(), bias.end());
  }
  if (reader.status().ok()) layer.weight = PackedWeight::Pack(weights, dtype);
  return layer;
}

NormLayer ReadNorm(TensorReader& reader, const std::string& prefix, int size, float eps) {
  return {.weight = reader.Vector(prefix + "weight", {size}),
          .bias = reader.Vector(prefix + "bias", {size}),
          .eps = eps};
}

void Apply(const LinearLayer& layer, const float* x, int rows, float* y, WorkerPool& workers,
           bool accumulate) {
  LinearCpu({.weight = &layer.weight,
             .x = x,
             .x_stride = layer.weight.in_features(),
             .y = y,
             .y_stride = layer.out_features(),
             .rows = rows,
             .accumulate = accumulate,
             .bias = layer.bias.empty() ? nullptr : layer.bias.data()},
            workers);
}

void Apply(const NormLayer& layer, const float* x, int rows, float* y, WorkerPool& workers) {
  const int size = static_cast<int>(layer.weight.size());
  LayerNormCpu({.x = x,
                .x_stride = size,
                .weight = layer.weight.data(),
                .bias = layer.bias.data(),
                .y = y,
                .y_stride = size,
                .rows = rows,
                .size = size,
                .eps = layer.eps},
               workers);
}

void MeanOfRows(const float* x, int groups, int count, int size, float* y) {
  const float scale = 1.f / static_cast<float>(count);
  for (int group = 0; group < groups; ++group, y += size) {
    std::fill_n(y, size, 0.f);
    for (int row = 0; row < count; ++row, x += size) {
      for (int i = 0; i < size; ++i) y[i] += x[i] * scale;
    }
  }
}

int64_t Bytes(const LinearLayer& layer) {
  return layer.weight.bytes() + static_cast<int64_t>(layer.bias.size() * sizeof(float));
}

int64_t Bytes(const NormLayer& layer) {
  return static_cast<int64_t>((layer.weight.size() + layer.bias.size()) * sizeof(float));
}

float ReadEmbedScale(const nlohmann::json& json, JsonFields& fields, int hidden_size) {
  constexpr char kRootOfSize[] = "sqrt(hidden_size)";
  const auto found = json.find("embed_scale");
  if (found != json.end() && found->is_number()) {
    return static_cast<float>(fields.Number("embed_scale", {}, 1e-6, 1e6));
  }
  if (fields.String("embed_scale", kRootOfSize) != kRootOfSize) {
    fields.Fail("embed_scale", absl::StrCat("a number or \"", kRootOfSize, "\""));
  }
  return std::sqrt(static_cast<float>(hidden_size));
}

// [sin(p f_0), ..., cos(p f_0), ...] with f_i = 10000^(-i / (size / 2 - 1)), all in float32, since
// models were trained with that.
std::vector<float> SinusoidPositions(int num_positions, int size, int padding_idx) {
  const int half = size / 2;
  const auto step = static_cast<float>(-std::log(10000.0) / (half - 1));
  std::vector<float> frequencies(half);
  for (int i = 0; i < half; ++i) frequencies[i] = std::exp(static_cast<float>(i) * step);
  std::vector<float> table;
  table.reserve(int64_t{num_positions} * size);
  for (int i = 0; i < num_positions; ++i) {
    const auto position = static_cast<float>(padding_idx + 1 + i);
    for (float frequency : frequencies) table.push_back(std::sin(position * frequency));
    for (float frequency : frequencies) table.push_back(std::cos(position * frequency));
  }
  return table;
}

bool ReadHasLearnedPositions(JsonFields& fields) {
  const std::string positions = fields.String("positions", "sinusoidal");
  if (positions == "learned") return true;
  if (positions != "sinusoidal") fields.Fail("positions", "\"sinusoidal\" or \"learned\"");
  return false;
}

std::vector<float> ReadPositions(TensorReader& reader, const PositionsConfig& config) {
  const int size = config.size;
  if (!config.are_learned) return SinusoidPositions(config.num_positions, size, config.padding_idx);
  const int num_unused = config.padding_idx + 1;
  std::vector<float> table =
      reader.Vector("embed_positions.weight", {config.num_positions + num_unused, size});
  if (!table.empty()) table.erase(table.begin(), table.begin() + int64_t{num_unused} * size);
  return table;
}

Activation ReadActivation(JsonFields& fields, const std::string& fallback) {
  const std::string name = fields.String("hidden_act", fallback);
  if (name == "relu") return Activation::kRelu;
  if (name != "gelu") fields.Fail("hidden_act", "\"gelu\" or \"relu\"");
  return Activation::kGelu;
}

void Activate(Activation activation, float* x, int rows, int size, WorkerPool& workers) {
  const ActivationParams params = {
      .x = x, .x_stride = size, .y = x, .y_stride = size, .rows = rows, .size = size};
  if (activation == Activation::kRelu) return ReluCpu(params, workers);
  GeluCpu(params, workers);
}

void AddMlp(const Mlp& mlp, const float* x, int rows, float* hidden, float* residual,
            WorkerPool& workers) {
  const int64_t width = mlp.hidden_size(), in = mlp.fc1.weight.in_features();
  const int block = RowsPerBlock(width, rows);
  for (int begin = 0; begin < rows; begin += block) {
    const int count = std::min(block, rows - begin);
    Apply(mlp.fc1, x + begin * in, count, hidden, workers);
    const float* activated = hidden;
    if (mlp.is_gated) {
      float* packed = hidden + block * width;
      GeGluCpu({.x = hidden,
                .x_stride = width,
                .y = packed,
                .y_stride = width / 2,
                .rows = count,
                .size = static_cast<int>(width / 2)},
               workers);
      activated = packed;
    } else {
      Activate(mlp.activation, hidden, count, static_cast<int>(width), workers);
    }
    Apply(mlp.fc2, activated, count, residual + begin * mlp.fc2.out_features(), workers,
          /*accumulate=*/true);
  }
}

int64_t MlpScratch(const Mlp& mlp, int rows) {
  const int64_t width = mlp.hidden_size() + (mlp.is_gated ? mlp.hidden_size() / 2 : 0);
  return RowsPerBlock(mlp.hidden_size(), rows) * width;
}

}  // namespace evaserve

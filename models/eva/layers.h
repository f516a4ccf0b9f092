#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/linear.h"
#include "kernels/worker_pool.h"
#include "models/io/json_fields.h"
#include "models/io/tensor_reader.h"

namespace evaserve {

// The type that matrices are kept and multiplied in: `wanted`, or else what "torch_dtype" says,
// float32 if it is absent. An error of `fields` for one that is not float32 or bfloat16.
DType ReadComputeType(JsonFields& fields, std::optional<DType> wanted);

// The floats of a table of positions, 256 MiB: sinusoids are in no checkpoint, so a few lines of a
// config.json could ask for any memory.
inline constexpr int64_t kMaxPositionFloats = int64_t{1} << 26;

// An error of `fields` for `key`, the number of positions, if their table would be larger.
void CheckPositions(JsonFields& fields, const char* key, int num_positions, int hidden_size);

// y = x W^T + b
struct LinearLayer {
  PackedWeight weight;
  std::vector<float> bias;  // [out_features], empty for none

  int64_t out_features() const { return weight.out_features(); }
};

struct NormLayer {
  std::vector<float> weight, bias;  // [size]
  float eps = 1e-5f;
};

// Reads `prefix`weight, of `shape` or [out, in], and `prefix`bias, and packs the weight in `dtype`.
LinearLayer ReadLinear(TensorReader& reader, const std::string& prefix,
                       const std::vector<int64_t>& shape, DType dtype, bool has_bias = true);

// Several such layers of the same input as one, whose outputs lie one after the other.
LinearLayer ReadStackedLinear(TensorReader& reader, const std::vector<std::string>& prefixes,
                              const std::vector<int64_t>& shape, DType dtype, bool has_bias = true);

NormLayer ReadNorm(TensorReader& reader, const std::string& prefix, int size, float eps);

// Rows of a layer, contiguous. `accumulate`: y += instead of y =, as for a residual. A norm's y may
// be x.
void Apply(const LinearLayer& layer, const float* x, int rows, float* y, WorkerPool& workers,
           bool accumulate = false);
void Apply(const NormLayer& layer, const float* x, int rows, float* y, WorkerPool& workers);

// The mean of each group of `count` rows: from x [groups, count, size] to y [groups, size].
void MeanOfRows(const float* x, int groups, int count, int size, float* y);

int64_t Bytes(const LinearLayer& layer);
int64_t Bytes(const NormLayer& layer);

// "embed_scale" of a config.json, by which embeddings are multiplied: a number, or
// "sqrt(hidden_size)", as it is if absent. An error of `fields`, which read `json`, for another.
float ReadEmbedScale(const nlohmann::json& json, JsonFields& fields, int hidden_size);

// fairseq's sinusoids: [num_positions, size], of which the first is that of the first token, number
// padding_idx + 1. `size` is even and at least 4.
std::vector<float> SinusoidPositions(int num_positions, int size, int padding_idx);

// "positions" of a config.json: true for "learned", false for "sinusoidal", as it is if absent. An
// error of `fields` for another.
bool ReadHasLearnedPositions(JsonFields& fields);

// What is added to the tokens' embeddings.
struct PositionsConfig {
  bool are_learned = false;
  int num_positions = 0;
  int size = 0;
  int padding_idx = 0;
};

// [num_positions, size], as SinusoidPositions(). Learned ones are "embed_positions.weight", whose
// first padding_idx + 1 rows are of no token.
std::vector<float> ReadPositions(TensorReader& reader, const PositionsConfig& config);

enum class Activation { kGelu, kRelu };

// "hidden_act" of a config.json, `fallback` if it is absent. An error of `fields` for one that is
// not known.
Activation ReadActivation(JsonFields& fields, const std::string& fallback);

// x = activation(x) for contiguous rows.
void Activate(Activation activation, float* x, int rows, int size, WorkerPool& workers);

// fc1, an activation, fc2 as transformers have it.
struct Mlp {
  LinearLayer fc1, fc2;
  bool is_gated = false;                      // fc1 gives [gate | up], and gelu(gate) * up goes on
  Activation activation = Activation::kGelu;  // without a gate

  int64_t hidden_size() const { return fc1.out_features(); }
};

// residual += mlp(x) for contiguous rows; `hidden` is scratch of MlpScratch() floats. x may be
// residual.
void AddMlp(const Mlp& mlp, const float* x, int rows, float* hidden, float* residual,
            WorkerPool& workers);
int64_t MlpScratch(const Mlp& mlp, int rows);

}  // namespace evaserve

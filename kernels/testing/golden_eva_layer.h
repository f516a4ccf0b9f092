#pragma once

// The published code of the paper's EVA, at the level of one layer: x in, x out.

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "kernels/causal_eva.h"
#include "kernels/linear.h"
#include "kernels/relative_bias.h"
#include "kernels/testing/eva_layer.h"
#include "kernels/testing/eva_sequence.h"
#include "kernels/testing/golden_reader.h"

namespace evaserve {

// One case: its parameters, its tensors and the layer they make.
class GoldenEvaLayer {
 public:
  GoldenEvaLayer(const GoldenFile& file, const nlohmann::json& c)
      : file_(file), c_(c), name_(c.at("case")), dim_(c.at("dim")) {
    options_.num_heads = c.at("num_heads");
    options_.head_dim = dim_ / options_.num_heads;
    const std::string proj = c.at("adaptive_proj");
    options_.has_map_q = proj != "none";
    options_.has_norm = proj != "no-ln";
  }

  const EvaLayerOptions& options() const { return options_; }
  int dim() const { return dim_; }
  bool Has(const std::string& tensor) const { return file_.Has(name_ + "." + tensor); }
  GoldenTensor Get(const std::string& tensor) const { return file_.Get(name_ + "." + tensor); }
  std::vector<float> Param(const std::string& param) const {
    return Get("param." + param).floats();
  }
  double Tolerance(const std::string& tensor) const { return c_.at("tol_fp32").at(tensor); }

  MapWeights MapOf(const std::string& name) const {
    MapWeights map = {Param(name + ".0.weight"), Param(name + ".0.bias"), {}, {}};
    if (options_.has_norm) {
      map.norm_weight = Param(name + ".1.weight");
      map.norm_bias = Param(name + ".1.bias");
    }
    return map;
  }

  // x W^T + b
  std::vector<float> Linear(const std::vector<std::string>& names, const std::vector<float>& x,
                            WorkerPool& workers) const {
    std::vector<float> weight, bias;
    for (const std::string& name : names) {
      const std::vector<float> w = Param(name + ".weight"), b = Param(name + ".bias");
      weight.insert(weight.end(), w.begin(), w.end());
      bias.insert(bias.end(), b.begin(), b.end());
    }
    const int64_t out = static_cast<int64_t>(bias.size());
    const WeightView view = {weight.data(), DType::kFloat32, out, dim_};
    const PackedWeight packed = PackedWeight::Pack({&view, 1}, DType::kFloat32);
    const int rows = static_cast<int>(x.size()) / dim_;
    std::vector<float> y(rows * out);
    LinearParams linear;
    linear.weight = &packed;
    linear.bias = bias.data();
    linear.x = x.data();
    linear.x_stride = dim_;
    linear.y = y.data();
    linear.y_stride = out;
    linear.rows = rows;
    LinearCpu(linear, workers);
    return y;
  }

  // Row `batch` of a tensor [batch, ...].
  std::vector<float> Row(const GoldenTensor& tensor, int batch) const {
    const int64_t size = static_cast<int64_t>(tensor.values.size()) / tensor.shape[0];
    return {tensor.values.begin() + batch * size, tensor.values.begin() + (batch + 1) * size};
  }

  void Check(const std::string& what, std::span<const float> got, std::span<const float> want) {
    EXPECT_LE(MaxError(got, want), Tolerance(what)) << what;
  }

  // q, k or v of rows [q | k | v] against a tensor [heads, at least as many tokens, head_dim].
  void CheckHeads(const std::string& what, const std::vector<float>& rows, int part,
                  const std::vector<float>& want) {
    const int64_t d = options_.head_dim, tokens = static_cast<int64_t>(rows.size()) / (3 * dim_);
    const int64_t padded = static_cast<int64_t>(want.size()) / dim_;
    std::vector<float> got, real;
    for (int64_t h = 0; h < options_.num_heads; ++h) {
      for (int64_t i = 0; i < tokens * d; ++i) {
        got.push_back(rows[i / d * 3 * dim_ + part * dim_ + h * d + i % d]);
        real.push_back(want[h * padded * d + i]);
      }
    }
    Check(what, got, real);
  }

  // lse [tokens, heads] against [heads, windows, queries].
  void CheckLse(const Regions& regions, const std::vector<float>& lse,
                const std::vector<float>& want) {
    std::vector<float> got, real;
    for (int h = 0; h < options_.num_heads; ++h) {
      for (size_t i = 0; i < regions.queries.size(); ++i) {
        if (regions.queries[i] < 0) continue;
        got.push_back(lse[regions.queries[i] * options_.num_heads + h]);
        real.push_back(want[h * regions.queries.size() + i]);
      }
    }
    Check("lse", got, real);
  }

  // Full chunks [heads, chunks, head_dim] against [heads, at least as many chunks, head_dim].
  void CheckLandmarks(const std::string& what, const std::vector<float>& got,
                      const std::vector<float>& want) {
    const size_t size = got.size() / options_.num_heads;
    const size_t padded = want.size() / options_.num_heads;
    std::vector<float> real;
    for (int h = 0; h < options_.num_heads; ++h) {
      real.insert(real.end(), &want[h * padded], &want[h * padded] + size);
    }
    Check(what, got, real);
  }

  // lse [tokens, heads] against [heads, at least as many tokens].
  void CheckCausalLse(const std::vector<float>& got, const std::vector<float>& want) {
    const size_t heads = options_.num_heads, padded = want.size() / heads;
    std::vector<float> real;
    for (size_t i = 0; i < got.size(); ++i) real.push_back(want[i % heads * padded + i / heads]);
    Check("lse", got, real);
  }

 private:
  const GoldenFile& file_;
  const nlohmann::json& c_;
  const std::string name_;
  const int dim_;
  EvaLayerOptions options_;
};

inline RegionShape ShapeOf(const nlohmann::json& c) {
  RegionShape shape;
  shape.is_2d = c.at("attn_2d");
  if (shape.is_2d) shape.height = c.at("shape")[0];
  shape.width = c.at("shape").back();
  shape.window = c.at("window_size");
  shape.num_landmarks = c.at("num_landmarks");
  shape.overlap = c.at("overlap_window");
  return shape;
}

inline std::vector<float> BiasOf(const nlohmann::json& c, const GoldenEvaLayer& layer,
                                 const RegionShape& shape, const Regions& regions) {
  const EvaLayerOptions& o = layer.options();
  if (c.at("use_t5_rpe")) {
    const std::vector<float> embedding = layer.Param("rel_pos_bias.relative_attention_bias.weight");
    const T5Buckets buckets = T5BucketsFor(shape.window, shape.extension(), /*is_causal=*/false);
    EXPECT_EQ(buckets.num_buckets, c.at("t5_num_buckets"));
    EXPECT_EQ(buckets.max_distance, c.at("t5_max_distance"));
    return T5Bias(embedding, o.num_heads, 1.f / std::sqrt(float(o.head_dim)), buckets,
                  regions.window_queries, regions.window_keys)
        .value();
  }
  if (!c.at("use_rpe")) return {};
  const std::vector<float> table = layer.Param("local_relative_position_bias_table");
  if (!shape.is_2d) return table;
  return MapBias(table, o.num_heads, shape.window, shape.extension()).value();
}

// A number of chunks instead of their size makes the size depend on the length, which a server does
// not know ahead; for the length of a case it is a size like any other.
inline CausalEvaShape CausalShapeOf(const nlohmann::json& c, const EvaLayerOptions& options) {
  CausalEvaShape shape;
  shape.num_heads = options.num_heads;
  shape.head_dim = options.head_dim;
  shape.window = c.at("window_size");
  shape.chunk = c.at("chunk_size").is_null() ? c.at("N").get<int>() / c.at("num_chunks").get<int>()
                                             : c.at("chunk_size").get<int>();
  shape.overlap = c.at("overlap_window");
  return shape;
}

inline std::vector<float> CausalBiasOf(const nlohmann::json& c, const GoldenEvaLayer& layer,
                                       const CausalEvaShape& shape) {
  if (!c.at("use_t5_rpe")) return {};
  const std::vector<float> embedding = layer.Param("rel_pos_bias.relative_attention_bias.weight");
  const T5Buckets buckets = T5BucketsFor(shape.window, shape.extension(), /*is_causal=*/true);
  EXPECT_EQ(buckets.num_buckets, c.at("t5_num_buckets"));
  const float scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim));
  return T5Bias(embedding, 1, scale, buckets, shape.window, shape.num_keys()).value();
}

// Pads are nothing that a key or a member of a chunk could be; the published code still computes
// their queries.
inline void HidePads(const std::vector<float>& is_pad, Regions& regions) {
  for (std::vector<int32_t>* table : {&regions.keys, &regions.members}) {
    for (int32_t& token : *table) {
      if (token >= 0 && is_pad[token] != 0.f) token = -1;
    }
  }
}

}  // namespace evaserve

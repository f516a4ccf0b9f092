#pragma once

#include <span>
#include <vector>

#include "kernels/landmarks.h"
#include "kernels/regions.h"
#include "kernels/window_attend.h"
#include "kernels/worker_pool.h"

namespace evaserve {

struct EvaLayerOptions {
  int num_heads = 1;
  int head_dim = 16;
  DType dtype = DType::kFloat32;
  bool has_map_q = true;
  bool has_norm = true;
  float mu_scale = 0.5f;
};

struct EvaLayerOutput {
  std::vector<float> k_bar, beta;  // as LandmarksParams
  std::vector<float> out;          // [tokens, num_heads * head_dim]
  std::vector<float> lse;          // [tokens, num_heads]
};

// The learned map of queries or keys.
struct MapWeights {
  std::vector<float> weight, bias, norm_weight, norm_bias;  // the norm's empty: none
};
MapWeights RandomMap(int head_dim, bool has_norm, uint32_t seed);
PackedWeight PackMap(const MapWeights& map);
AdaptiveMap ViewMap(const MapWeights& map, const PackedWeight& weight);

// Rows of `width` numbers with kRowGap times NaN behind each, and back: then the gaps must still be
// NaN.
inline constexpr int kRowGap = 5;
std::vector<float> WithGaps(const std::vector<float>& rows, int width);
std::vector<float> WithoutGaps(const std::vector<float>& spread, int width);

// The maps of one layer of the paper's EVA, and both kernels one after the other.
class EvaLayer {
 public:
  // Random maps.
  EvaLayer(const EvaLayerOptions& options, uint32_t seed);

  EvaLayer(const EvaLayerOptions& options, const MapWeights& map_q, const MapWeights& map_k);

  int width() const { return options_.num_heads * options_.head_dim; }
  // [num_heads, window_queries, window_keys]; empty: none.
  void set_bias(std::vector<float> bias) { bias_ = std::move(bias); }

  // A row of qkv is [q | k | v], each width() long. On the pool, or by the references if it is
  // null. What lies behind rows is NaN.
  EvaLayerOutput Run(std::span<const RegionItem> items, const std::vector<float>& qkv,
                     WorkerPool* pool) const;
  EvaLayerOutput Run(const Regions& regions, const std::vector<float>& qkv, WorkerPool* pool) const;

 private:
  EvaLayerOptions options_;
  MapWeights map_q_, map_k_;
  PackedWeight weight_q_, weight_k_;
  std::vector<float> bias_;
};

}  // namespace evaserve

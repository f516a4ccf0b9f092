#include "kernels/testing/eva_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/testing/eva_sequence.h"

namespace evaserve {
MapWeights RandomMap(int head_dim, bool has_norm, uint32_t seed) {
  MapWeights map;
  map.weight = RandomVector(head_dim * head_dim, 1.f / std::sqrt(float(head_dim)), seed);
  map.bias = RandomVector(head_dim, 0.3f, seed + 1);
  if (has_norm) {
    map.norm_weight = RandomVector(head_dim, 1.f, seed + 2);
    map.norm_bias = RandomVector(head_dim, 0.3f, seed + 3);
  }
  return map;
}

PackedWeight PackMap(const MapWeights& map) {
  const int64_t head_dim = static_cast<int64_t>(map.bias.size());
  const WeightView view = {map.weight.data(), DType::kFloat32, head_dim, head_dim};
  return PackedWeight::Pack({&view, 1}, DType::kFloat32);
}

AdaptiveMap ViewMap(const MapWeights& map, const PackedWeight& weight) {
  AdaptiveMap view;
  view.weight = &weight;
  view.bias = map.bias.data();
  if (!map.norm_weight.empty()) {
    view.norm_weight = map.norm_weight.data();
    view.norm_bias = map.norm_bias.data();
  }
  return view;
}

std::vector<float> WithGaps(const std::vector<float>& rows, int width) {
  const size_t num_rows = rows.size() / width;
  std::vector<float> spread(num_rows * (width + kRowGap), NAN);
  for (size_t i = 0; i < num_rows; ++i) {
    std::copy_n(&rows[i * width], width, &spread[i * (width + kRowGap)]);
  }
  return spread;
}

std::vector<float> WithoutGaps(const std::vector<float>& spread, int width) {
  std::vector<float> rows;
  for (size_t i = 0; i < spread.size(); ++i) {
    if (i % (width + kRowGap) < size_t(width)) {
      rows.push_back(spread[i]);
    } else {
      EXPECT_TRUE(std::isnan(spread[i])) << "wrote behind a row, at " << i;
    }
  }
  return rows;
}

EvaLayer::EvaLayer(const EvaLayerOptions& options, uint32_t seed)
    : EvaLayer(options, RandomMap(options.head_dim, options.has_norm, seed),
               RandomMap(options.head_dim, options.has_norm, seed + 10)) {}

EvaLayer::EvaLayer(const EvaLayerOptions& options, const MapWeights& map_q, const MapWeights& map_k)
    : options_(options),
      map_q_(map_q),
      map_k_(map_k),
      weight_q_(options.has_map_q ? PackMap(map_q) : PackedWeight()),
      weight_k_(PackMap(map_k)) {}

EvaLayerOutput EvaLayer::Run(std::span<const RegionItem> items, const std::vector<float>& qkv,
                             WorkerPool* pool) const {
  const std::vector<float> spread = WithGaps(qkv, 3 * width());
  const size_t num_tokens = qkv.size() / (3 * width());
  int64_t num_landmarks = 0;
  for (const RegionItem& item : items) num_landmarks += item.regions->num_chunks;
  EvaLayerOutput output;
  output.k_bar.assign(num_landmarks * width(), NAN);
  output.beta.assign(num_landmarks * width(), NAN);
  output.lse.assign(num_tokens * options_.num_heads, NAN);
  std::vector<float> out(num_tokens * (width() + kRowGap), NAN);

  LandmarksParams landmarks;
  landmarks.items = items;
  landmarks.num_heads = options_.num_heads;
  landmarks.head_dim = options_.head_dim;
  landmarks.scale = 1.f / std::sqrt(float(options_.head_dim));
  landmarks.q = spread.data();
  landmarks.k = landmarks.q + width();
  landmarks.v = landmarks.k + width();
  landmarks.stride = 3 * width() + kRowGap;
  if (options_.has_map_q) landmarks.map_q = ViewMap(map_q_, weight_q_);
  landmarks.map_k = ViewMap(map_k_, weight_k_);
  landmarks.mu_scale = options_.mu_scale;
  landmarks.k_bar = output.k_bar.data();
  landmarks.beta = output.beta.data();
  const absl::Status made =
      pool == nullptr ? LandmarksReference(landmarks) : LandmarksCpu(landmarks, *pool);
  EXPECT_TRUE(made.ok()) << made;

  WindowAttendParams attend;
  attend.items = items;
  attend.num_heads = options_.num_heads;
  attend.head_dim = options_.head_dim;
  attend.scale = landmarks.scale;
  attend.dtype = options_.dtype;
  attend.q = landmarks.q;
  attend.k = landmarks.k;
  attend.v = landmarks.v;
  attend.stride = landmarks.stride;
  attend.k_bar = output.k_bar.data();
  attend.beta = output.beta.data();
  attend.bias = bias_.empty() ? nullptr : bias_.data();
  attend.out = out.data();
  attend.out_stride = width() + kRowGap;
  attend.lse = output.lse.data();
  const absl::Status attended =
      pool == nullptr ? WindowAttendReference(attend) : WindowAttendCpu(attend, *pool);
  EXPECT_TRUE(attended.ok()) << attended;
  output.out = WithoutGaps(out, width());
  return output;
}

EvaLayerOutput EvaLayer::Run(const Regions& regions, const std::vector<float>& qkv,
                             WorkerPool* pool) const {
  const RegionItem item = {&regions, 0, 0};
  return Run({&item, 1}, qkv, pool);
}

}  // namespace evaserve

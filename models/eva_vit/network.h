#pragma once

#include <memory>
#include <vector>

#include "kernels/regions.h"
#include "models/eva/attention.h"
#include "models/eva_vit/config.h"
#include "models/vision/vision_model.h"

namespace evaserve {

struct EvaVitLayer {
  NormLayer norm1, norm2;
  EvaAttention attention;
  Mlp mlp;
};

struct EvaVitWeights {
  LinearLayer patch_embed;       // [size, 3 * patch_size^2]
  std::vector<float> pos_embed;  // [num_tokens, size]
  std::vector<EvaVitLayer> layers;
  NormLayer norm;  // norm_before_pooling
};

// Errors are the reader's.
absl::StatusOr<EvaVitWeights> ReadEvaVitWeights(TensorReader& reader, const EvaVitConfig& config);

int64_t Bytes(const EvaVitWeights& weights);

// On the CPU. Not thread-safe.
class EvaVitNetwork final : public ImageNetwork {
 public:
  EvaVitNetwork(const EvaVitConfig& config, EvaVitWeights weights, WorkerPool& workers);

  int image_size() const override { return config_.image_size; }
  int feature_size() const override { return config_.size; }
  int num_tokens() const override { return config_.num_tokens(); }
  int64_t weight_bytes() const override { return Bytes(weights_); }
  absl::Status Run(const float* pixels, int batch, float* features) override;

  // What the tokens are after layer `layer` of the last image of the last pass, for tests: called
  // after each layer with [batch, num_tokens, size].
  using LayerProbe = std::function<void(int layer, const float* tokens)>;
  void SetProbe(LayerProbe probe) { probe_ = std::move(probe); }

 private:
  void EmbedPatches(const float* pixels, int batch);
  void Pool(int batch, float* features);

  const EvaVitConfig config_;
  const EvaVitWeights weights_;
  const Regions regions_;
  WorkerPool& workers_;
  LayerProbe probe_;
  FloatBuffer tokens_, normed_, scratch_;
  AttentionBuffers attention_;
};

}  // namespace evaserve

#pragma once

#include <array>
#include <functional>
#include <vector>

#include "kernels/regions.h"
#include "models/eva/attention.h"
#include "models/eva_pvt/config.h"
#include "models/vision/vision_model.h"

namespace evaserve {

// fc1, a 3x3 convolution of each channel, GELU, fc2.
struct ConvMlp {
  LinearLayer fc1, fc2;
  std::vector<float> conv_weight;  // [3, 3, hidden]
  std::vector<float> conv_bias;    // [hidden]
};

struct EvaPvtLayer {
  NormLayer norm1, norm2;
  EvaAttention attention;
  ConvMlp mlp;
};

struct EvaPvtStage {
  LinearLayer patch_embed;  // [size, channels before * kernel^2]
  NormLayer patch_norm;
  std::vector<EvaPvtLayer> layers;
  NormLayer norm;
};

struct EvaPvtWeights {
  std::array<EvaPvtStage, kNumPvtStages> stages;
};

// Errors are the reader's.
absl::StatusOr<EvaPvtWeights> ReadEvaPvtWeights(TensorReader& reader, const EvaPvtConfig& config);

int64_t Bytes(const EvaPvtWeights& weights);

// On the CPU. Not thread-safe.
class EvaPvtNetwork final : public ImageNetwork {
 public:
  EvaPvtNetwork(const EvaPvtConfig& config, EvaPvtWeights weights, WorkerPool& workers);

  int image_size() const override { return config_.image_size; }
  int feature_size() const override { return config_.feature_size(); }
  int num_tokens() const override { return config_.stages[0].side * config_.stages[0].side; }
  int64_t weight_bytes() const override { return Bytes(weights_); }
  absl::Status Run(const float* pixels, int batch, float* features) override;

  // For tests: called after each stage's norm with its map [batch, side, side, size].
  using StageProbe = std::function<void(int stage, const float* tokens)>;
  void SetProbe(StageProbe probe) { probe_ = std::move(probe); }

 private:
  // A map before a stage: of the pixels, or of the stage before.
  struct Map {
    const float* data = nullptr;
    int side = 0;
    int channels = 0;
    bool channels_last = true;
  };

  void EmbedPatches(int stage, const Map& from, int batch, float* tokens);
  absl::Status RunLayers(int stage, int batch, float* tokens, float* normed);
  void AddConvMlp(const ConvMlp& mlp, const EvaPvtStageConfig& stage, int batch, const float* x,
                  float* residual);

  const EvaPvtConfig config_;
  const EvaPvtWeights weights_;
  std::array<Regions, kNumPvtStages> regions_;
  WorkerPool& workers_;
  StageProbe probe_;
  FloatBuffer tokens_, map_, scratch_, hidden_;
  AttentionBuffers attention_;
};

}  // namespace evaserve

#pragma once

#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/window_batch.h"
#include "kernels/regions.h"
#include "kernels/testing/eva_layer.h"

namespace evaserve {

// A random layer and batch for the kernels of the paper's EVA, and the same for the references.
// Between the rows of all tensors is NaN, and what was not written is NaN.
class WindowCase {
 public:
  struct Options {
    DType type = DType::kBFloat16;
    int head_dim = 64;
    int num_heads = 2;
    std::vector<RegionShape> items;  // without them, what `causal` says
    CausalEvaShape causal;           // num_heads and head_dim are those above
    std::vector<int> lengths;        // of causal sequences
    bool has_bias = false;
    bool has_map_q = true;
    bool has_norm = true;
    float spread = 1.f;  // of queries, keys and values
    uint32_t seed = 1;
  };

  explicit WindowCase(const Options& options);

  WindowOptions options() const;
  const WindowPlan& plan() const { return plan_; }
  int num_tokens() const { return num_tokens_; }
  int width() const { return options_.num_heads * options_.head_dim; }
  int stride() const { return 3 * width() + kGap; }
  int out_stride() const { return width() + kGap; }

  // The layer as it lies on the host: for the emulator, or to be uploaded.
  LandmarksLayer landmarks();
  WindowLayer attend();
  // Elements as their bits; a float32 is two numbers.
  std::vector<uint16_t> qkv, k_bar, beta, out;
  std::vector<float> bias, lse;
  // Of queries and keys: weight [in, out], bias, norm's weight and bias.
  struct Map {
    std::vector<float> weight, bias, norm_weight, norm_bias;
    CudaMap view() const;
  };
  Map map_q, map_k;

  float Load(const std::vector<uint16_t>& from, int64_t index) const {
    return LoadElement(from.data(), options_.type, index);
  }

  // What k_bar and beta hold against LandmarksReference(): |a - b| / |b| of all rows, the larger of
  // the two; NaN if one is.
  double LandmarksError() const;
  // What `out` and `lse` hold. The reference attends to the landmarks as they are, or if it is
  // causal to its own.
  struct Error {
    double relative = 0.;
    double lse = 0.;  // the largest
  };
  Error AttendError() const;
  // Whether something was written between the rows of `out`.
  bool GapsAreWritten() const;

 private:
  static constexpr int kGap = 8;

  bool is_causal() const { return options_.items.empty(); }
  void MakeItems();
  void StoreRandom(std::vector<uint16_t>& to, int64_t index, float spread);
  std::vector<float> Floats(const std::vector<uint16_t>& from) const;
  LandmarksParams ReferenceLandmarks(const std::vector<float>& rows) const;
  absl::Status AttendReference(std::vector<float>& want, std::vector<float>& want_lse) const;

  const Options options_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<Regions>> regions_;
  std::vector<RegionItem> items_;
  int num_tokens_ = 0;
  MapWeights weights_q_, weights_k_;
  PackedWeight packed_q_, packed_k_;
  WindowPlan plan_;
};

}  // namespace evaserve

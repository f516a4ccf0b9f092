#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/window_plan.h"

namespace evaserve {

// The numbers of a layer on the host.
struct LayerNumbers {
  int num_heads = 0, head_dim = 0;
  std::vector<float> qkv;          // rows [q | k | v]
  std::vector<float> k_bar, beta;  // of chunks before; only steps read them
  // Of queries and of keys: weight [in, out], bias, weight and bias of the norm.
  std::vector<float> map;
  std::vector<float> bias;

  int width() const { return num_heads * head_dim; }
};

// What the device must make of them: the CPU's kernels in float32, whose rows are those of out.
//
// Of maps.
std::vector<float> AnswerOfMaps(const LayerNumbers& numbers, std::span<const RegionItem> items);

// Of whole causal sequences, one after the other.
std::vector<float> AnswerOfTexts(const LayerNumbers& numbers, const CausalEvaShape& shape,
                                 std::span<const int> lengths);

// Of one token for each causal sequence, whose row in out is that in its state. Without overlap.
std::vector<float> AnswerOfSteps(const LayerNumbers& numbers, const CausalEvaShape& shape,
                                 std::span<const CausalStep> steps);

// The root of the mean square of the difference, of that of `want`.
double RelativeError(std::span<const float> got, std::span<const float> want);

}  // namespace evaserve

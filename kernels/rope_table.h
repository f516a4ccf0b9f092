#pragma once

#include <vector>

#include "kernels/store_slots.h"

namespace evaserve {

// How a model stretches its positions beyond those it was trained on.
enum class RopeScaling {
  kNone,
  kLinear,   // positions are divided by the factor
  kDynamic,  // the base grows with the length of the table, once that exceeds max_positions
};

struct RopeOptions {
  int head_dim = 0;  // even
  float theta = 10000.f;
  int num_positions = 0;  // rows of the table
  RopeScaling scaling = RopeScaling::kNone;
  float factor = 1.f;     // of kLinear and kDynamic
  int max_positions = 0;  // the length trained on; kDynamic alone reads it
};

// The table of cosines and sines that StoreSlots reads, built in float32 throughout, as the models
// were trained: at position 32767 one float32 step of a frequency moves the angle by 2e-3, so a
// table of higher precision would be a different one. Immutable.
class RopeTables {
 public:
  explicit RopeTables(const RopeOptions& options);

  // A view; it lives as long as this object.
  RopeTable table() const { return {cos_.data(), sin_.data(), num_positions_}; }

  // [head_dim / 2]
  const std::vector<float>& inverse_frequencies() const { return inverse_frequencies_; }

 private:
  int num_positions_ = 0;
  std::vector<float> inverse_frequencies_;
  std::vector<float> cos_, sin_;  // [num_positions, head_dim / 2]
};

}  // namespace evaserve

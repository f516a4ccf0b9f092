#include "kernels/rope_table.h"

#include <cmath>

#include "kernels/give_way.h"

namespace evaserve {
namespace {

// The base of the frequencies. In double precision until the end, as Python computes it.
float Base(const RopeOptions& options) {
  if (options.scaling != RopeScaling::kDynamic || options.num_positions <= options.max_positions) {
    return options.theta;
  }
  const double stretch = double{options.factor} * options.num_positions / options.max_positions -
                         (options.factor - 1.0);
  return static_cast<float>(options.theta *
                            std::pow(stretch, options.head_dim / (options.head_dim - 2.0)));
}

}  // namespace

RopeTables::RopeTables(const RopeOptions& options) : num_positions_(options.num_positions) {
  const int half = options.head_dim / 2;
  const float base = Base(options);
  for (int i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(options.head_dim);
    inverse_frequencies_.push_back(1.f / std::pow(base, exponent));
  }

  const float divisor = options.scaling == RopeScaling::kLinear ? options.factor : 1.f;
  cos_.reserve(size_t(num_positions_) * half);
  sin_.reserve(size_t(num_positions_) * half);
  for (int position = 0; position < num_positions_; ++position) {
    for (const float frequency : inverse_frequencies_) {
      const float angle = static_cast<float>(position) / divisor * frequency;
      cos_.push_back(std::cos(angle));
      sin_.push_back(std::sin(angle));
    }
    GiveWay();
  }
}

}  // namespace evaserve

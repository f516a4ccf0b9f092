#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace evaserve {

// Layers of fairseq's transformer in plain loops and float64, for the references of its models.

// Of each row, as long as `weight`, with an epsilon of 1e-5.
inline std::vector<double> ReferenceNorm(const std::vector<double>& x,
                                         std::span<const float> weight,
                                         std::span<const float> bias) {
  const size_t size = weight.size();
  std::vector<double> y(x.size());
  for (size_t row = 0; row < x.size(); row += size) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < size; ++i) mean += x[row + i] / double(size);
    for (size_t i = 0; i < size; ++i) variance += std::pow(x[row + i] - mean, 2) / double(size);
    for (size_t i = 0; i < size; ++i) {
      y[row + i] = (x[row + i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + bias[i];
    }
  }
  return y;
}

// fairseq's, at a position that counts from 0.
inline double ReferenceSinusoid(int64_t position, int64_t index, int64_t size) {
  const int64_t half = size / 2;
  const double angle =
      double(position) * std::pow(10000.0, -double(index % half) / double(half - 1));
  return index < half ? std::sin(angle) : std::cos(angle);
}

// "relu" or "gelu" with erf.
inline std::vector<double> ReferenceActivation(std::vector<double> x, const std::string& name) {
  for (double& value : x) {
    value =
        name == "relu" ? std::max(value, 0.0) : value * (1 + std::erf(value / std::sqrt(2))) / 2;
  }
  return x;
}

}  // namespace evaserve

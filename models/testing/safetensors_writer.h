#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"

namespace evaserve {

struct TensorData {
  std::string name;
  std::string dtype;  // "F32", "BF16", ...
  std::vector<int64_t> shape;
  std::string bytes;
};

// `values`, rounded to `dtype`.
TensorData MakeTensor(std::string name, std::vector<int64_t> shape, std::span<const float> values,
                      DType dtype);

// The contents of a .safetensors file.
std::string SafetensorsFile(std::span<const TensorData> tensors);

// The same of a header and data that may be wrong.
std::string SafetensorsFile(std::string_view header, std::string_view data);

}  // namespace evaserve

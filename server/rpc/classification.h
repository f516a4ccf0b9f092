#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/tensor.h"

namespace evaserve {

// Whether Classify() takes scores of this type: FP32 and FP64.
bool CanClassify(TensorType type);

// Triton's classification extension: of each item of the batch the `num_classes` highest scores
// (all if there are fewer), the highest first and among equals the one of the lower index, as a
// tensor BYTES [batch, num_classes] of "<score>:<index>:<label>", or "<score>:<index>" where there
// is no label. NaN counts as lowest.
OutputTensor Classify(const OutputTensor& scores, TensorType type,
                      const std::vector<std::string>& labels, int64_t num_classes);

}  // namespace evaserve

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/tensor.h"

namespace evaserve {

// The scores of one item of the batch, FP32 or FP64.
std::vector<double> ScoresOfItem(const OutputTensor& scores, TensorType type, int64_t item);

// The indices of the `count` highest scores (all if there are fewer), the highest first and among
// equals the lower index. NaN counts as lowest.
std::vector<int64_t> Highest(const std::vector<double>& scores, int64_t count);

// Whether Classify() takes scores of this type: FP32 and FP64.
bool CanClassify(TensorType type);

// Triton's classification extension: of each item of the batch the `num_classes` Highest(), as a
// tensor BYTES [batch, num_classes] of "<score>:<index>:<label>", or "<score>:<index>" where there
// is no label.
OutputTensor Classify(const OutputTensor& scores, TensorType type,
                      const std::vector<std::string>& labels, int64_t num_classes);

}  // namespace evaserve

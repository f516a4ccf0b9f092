#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "inference/open_inference.pb.h"
#include "models/tensor.h"

namespace evaserve {

// All elements, whatever their datatype. Clients send contents that are there and have none.
int64_t NumElements(const inference::InferTensorContents& contents);

// A tensor's typed contents as raw ones: little-endian, an element of BYTES after its length in 4
// bytes. InvalidArgument, naming the tensor, for contents of another datatype, of another number of
// elements, with one that the datatype cannot hold, or for FP16 and BF16, which have none.
absl::StatusOr<std::string> TypedToRaw(const inference::InferTensorContents& contents,
                                       const TensorSpec& spec, int64_t num_elements);

}  // namespace evaserve

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "inference/open_inference.pb.h"

namespace evaserve {

// Adds an input of shape [rows, 1] to a request, without its contents.
inference::ModelInferRequest::InferInputTensor& AddInput(const char* name, const char* type,
                                                         int64_t rows,
                                                         inference::ModelInferRequest& request);

// Takes the first element off raw contents of BYTES; nullopt if there is none.
std::optional<std::string> TakeElement(std::string_view& raw);

}  // namespace evaserve

#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/tensor.h"

namespace evaserve {

// The texts of a request's text_input, BYTES [n, 1], whose data they lie in. InvalidArgument,
// naming the row, what came and what is allowed, unless each is UTF-8 and of a size, alone and
// together, that can be split into words before anybody knows how many tokens they are.
absl::StatusOr<std::vector<std::string_view>> ReadTextRows(const InputTensor& text_input);

}  // namespace evaserve

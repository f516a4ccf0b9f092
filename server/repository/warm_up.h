#pragma once

#include "absl/status/status.h"
#include "models/model.h"

namespace evaserve {

// Runs a text of so many tokens through the model and generates a few more, as a first request
// would. Leaves no trace. Errors as Model::Step()'s.
absl::Status WarmUp(Model& model, int num_tokens);

}  // namespace evaserve

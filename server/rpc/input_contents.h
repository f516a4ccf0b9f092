#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "inference/open_inference.pb.h"

namespace evaserve {

// The raw contents of input number `i` of a request, or null if its contents are typed.
//
// Parameters of the tensor that would make its contents something else are refused. Clients send
// two of their own accord, and these are taken: `content_type`, a string, MLServer's name of a
// codec, which says nothing new; and `binary_data_size`, KServe's size of the raw contents, if that
// is what they have.
//
// Unimplemented for a parameter of shared memory; InvalidArgument, naming the tensor, what came and
// what is allowed, for another parameter, for contents of both kinds, and for raw contents that are
// not one for each input.
absl::StatusOr<const std::string*> RawContents(const inference::ModelInferRequest& request, int i);

}  // namespace evaserve

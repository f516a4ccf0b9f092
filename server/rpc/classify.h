#pragma once

#include "absl/status/statusor.h"
#include "evaserve/v1/inference.pb.h"
#include "server/repository/model_repository.h"
#include "server/rpc/tensor_call.h"

namespace evaserve {

// The work of a Classify call: the image goes to the model's input `image`, the classes come from
// its output `logits`. `response` lives as long as the call.
//
// Errors: Unimplemented for a model without these; InvalidArgument, naming the field, for an empty
// image or a priority out of range.
absl::StatusOr<TensorCall::Work> PrepareClassify(const ReadyModel& model,
                                                 const v1::ClassifyRequest& request,
                                                 v1::ClassifyResponse& response);

// The `top_k` most likely classes of one image's logits, or all if there are fewer.
void FillClasses(const OutputTensor& logits, const TensorSpec& spec, int64_t top_k,
                 v1::ClassifyResponse& response);

}  // namespace evaserve

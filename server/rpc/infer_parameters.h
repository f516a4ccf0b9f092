#pragma once

#include <google/protobuf/map.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/open_inference.pb.h"
#include "models/sampler.h"
#include "server/engine/request.h"

namespace evaserve {

// What the parameters of a ModelInferRequest ask for.
struct InferParameters {
  GenerateOptions generate;
  std::optional<std::chrono::microseconds> timeout;  // from the request's arrival
  int priority = kDefaultPriority;
  bool empty_final_response = false;  // on a stream
};

// When a request whose call ends at `deadline` has to end, if it has just come.
TimePoint EarlierDeadline(TimePoint deadline, const InferParameters& parameters);

// `defaults` holds for what is absent. A whole number may come as int64, uint64 or a double without
// fraction, a real number as any of these or in a string. InvalidArgument, naming the parameter,
// what came and what is allowed, for an unknown name, a wrong type or a value out of range;
// Unimplemented for a part of a sequence.
absl::StatusOr<InferParameters> ParseInferParameters(
    const google::protobuf::Map<std::string, inference::InferParameter>& parameters,
    const SamplingParams& defaults);

// Of a request to a model of tensors, which knows those alone that are about no generation.
absl::StatusOr<InferParameters> ParseTensorParameters(
    const google::protobuf::Map<std::string, inference::InferParameter>& parameters);

// The names it knows, in the order of docs/api.md.
std::vector<std::string> InferParameterNames();

}  // namespace evaserve

#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/open_inference.pb.h"
#include "models/tensor_model.h"
#include "server/engine/request.h"
#include "server/engine/tensor_engine.h"

namespace evaserve {

// What a ModelInferRequest to a model of tensors asks for, taken apart.
struct TensorPlan {
  struct Output {
    size_t index = 0;         // of the model's
    int64_t num_classes = 0;  // so many of the highest instead of all, see classification.h; 0: all

    bool operator==(const Output&) const = default;
  };

  TensorModel::Inputs inputs;        // views of the request, or of `contents`
  std::deque<std::string> contents;  // inputs that came typed, as raw bytes
  int64_t batch = 0;
  std::vector<Output> outputs;  // in the order asked for
  TimePoint deadline;
  int priority = kDefaultPriority;

  int64_t input_bytes() const;
};

// The plan is valid as long as `request`. InvalidArgument, naming field, value and what is allowed,
// for a request that does not fit `info` or breaks the protocol; Unimplemented for one that asks
// for shared memory or sequences.
absl::StatusOr<TensorPlan> PlanTensors(const inference::ModelInferRequest& request,
                                       const TensorModelInfo& info, TimePoint deadline);

// The engine's request, without `done`; valid as long as `plan`.
TensorRequest MakeRequest(const TensorPlan& plan);

// Adds the outputs of `plan`, raw. `outputs` are all of the model's.
void FillTensors(const TensorPlan& plan, const TensorModelInfo& info, TensorModel::Outputs outputs,
                 inference::ModelInferResponse& response);

}  // namespace evaserve

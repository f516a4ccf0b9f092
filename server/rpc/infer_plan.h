#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/open_inference.pb.h"
#include "models/model.h"
#include "server/engine/request.h"
#include "server/rpc/infer_parameters.h"
#include "server/rpc/request_group.h"

namespace evaserve {

// An output tensor of a model, named in docs/api.md.
enum class InferOutput { kTextOutput, kLogLikelihood, kBitsPerByte, kEmbedding };

// What a ModelInferRequest asks for, taken apart: the batch's elements, each run through each task
// that the outputs need.
struct InferPlan {
  std::vector<InferOutput> outputs;  // in the order asked for
  std::vector<Task> tasks;           // that they need
  std::vector<int64_t> text_bytes;   // [batch]
  std::vector<Request> requests;     // [tasks, batch], without id and sink
  bool empty_final_response = false;

  size_t batch() const { return text_bytes.size(); }
  int64_t input_bytes() const;

  // Whether all it asks for is one generation, so that its text can come in pieces.
  bool is_one_generation() const;
};

// InvalidArgument, naming field, value and what is allowed, for a request against the protocol;
// Unimplemented for one that asks for shared memory or sequences.
absl::StatusOr<InferPlan> PlanInfer(const inference::ModelInferRequest& request,
                                    const ModelInfo& info, const Tokenizer& tokenizer,
                                    TimePoint deadline);

// Adds the outputs of `plan` and what the completions tell, as parameters. `results` are in the
// order of plan.requests.
void FillOutputs(const InferPlan& plan, const std::vector<GroupResult>& results,
                 inference::ModelInferResponse& response);

// A piece of a generation's text as text_output [1].
void AddTextOutput(std::string_view text, inference::ModelInferResponse& response);

// Parameters finish_reason, seed, prompt_tokens and new_tokens of one generation.
void AddFinishParameters(const Completion& completion, inference::ModelInferResponse& response);

}  // namespace evaserve

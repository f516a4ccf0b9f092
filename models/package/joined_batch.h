#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/float_buffer.h"
#include "models/package/package_config.h"
#include "models/package/package_options.h"
#include "models/package/tensor_program.h"
#include "models/tensor_model.h"

namespace evaserve {

// What is joined how. Immutable.
struct JoinPlan {
  PackageConfig config;
  std::vector<bool> is_ragged_input;   // as config.inputs
  std::vector<bool> is_ragged_output;  // as config.outputs
  bool has_lengths = false;            // the program's last input

  int num_program_inputs() const { return static_cast<int>(config.inputs.size()) + has_lengths; }
};

// InvalidArgument, naming the tensor, if `ragged` names one that is not there or has no dimension
// of any number (-1) after the batch, or outputs without an input.
absl::StatusOr<JoinPlan> MakeJoinPlan(PackageConfig config, const RaggedTensors& ragged);

// Tokens of all rows of a request's ragged inputs, 0 without such. Its inputs fit plan.config.
int64_t NumRaggedTokens(const JoinPlan& plan, const TensorModel::Inputs& inputs);

// InvalidArgument, naming the input, what came and what is allowed, if ragged inputs of a request
// have rows without tokens, or of different numbers of tokens, or if a BOOL is neither 0 nor 1.
absl::Status CheckInputs(const JoinPlan& plan, const TensorModel::Inputs& inputs);

// Which of `requests` can run in one call: those whose shapes agree but for the rows (and for the
// tokens of ragged inputs). Lists of indices, in the order of the first of each.
std::vector<std::vector<size_t>> GroupByShape(const JoinPlan& plan,
                                              std::span<const TensorModel::Inputs* const> requests);

// The requests of one group as one call of a program. Reused, it keeps its memory. Not thread-safe.
class JoinedBatch {
 public:
  explicit JoinedBatch(const JoinPlan& plan) : plan_(plan) {}

  // Copies; the result is valid until the next call.
  std::span<const ProgramTensor> Join(std::span<const TensorModel::Inputs* const> requests);

  // The outputs of each request that was joined, in their order. Internal, naming the output, what
  // came and what is declared, if these are not what config.json says.
  absl::StatusOr<std::vector<TensorModel::Outputs>> Split(
      std::span<const ProgramTensor> outputs) const;

 private:
  struct Rows {
    int64_t count = 0;
    int64_t tokens = 0;  // of each
  };

  std::byte* Memory(size_t input, int64_t bytes);
  absl::Status CheckOutput(size_t index, const ProgramTensor& output) const;

  const JoinPlan& plan_;
  std::vector<FloatBuffer> memory_;
  std::vector<ProgramTensor> joined_;
  std::vector<Rows> rows_;  // of each request
  Rows all_;                // tokens: of all
};

}  // namespace evaserve

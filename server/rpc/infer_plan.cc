#include "server/rpc/infer_plan.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/quoted.h"
#include "server/rpc/refuse.h"
#include "server/rpc/score.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

struct OutputInfo {
  const char* name;
  InferOutput output;
  Task task;
};

constexpr OutputInfo kOutputs[] = {
    {"text_output", InferOutput::kTextOutput, Task::kGenerate},
    {"log_likelihood", InferOutput::kLogLikelihood, Task::kScore},
    {"bits_per_byte", InferOutput::kBitsPerByte, Task::kScore},
    {"embedding", InferOutput::kEmbedding, Task::kEmbed},
};

const OutputInfo* FindOutput(std::string_view name) {
  for (const OutputInfo& info : kOutputs) {
    if (name == info.name) return &info;
  }
  return nullptr;
}

template <typename T>
bool Contains(const std::vector<T>& list, T element) {
  return std::find(list.begin(), list.end(), element) != list.end();
}

absl::Status ReadOutput(const ModelInferRequest::InferRequestedOutputTensor& wanted,
                        InferPlan& plan) {
  const OutputInfo* info = FindOutput(wanted.name());
  if (info == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("outputs: got '", Quoted(wanted.name()),
                     "', allowed are text_output, log_likelihood, bits_per_byte, embedding"));
  }
  if (!wanted.parameters().empty()) {
    return RefuseParameter(info->name, wanted.parameters().begin()->first, "none");
  }
  if (Contains(plan.outputs, info->output)) {
    return absl::InvalidArgumentError(
        absl::StrCat("outputs: got ", info->name, " twice, allowed is once"));
  }
  plan.outputs.push_back(info->output);
  if (!Contains(plan.tasks, info->task)) plan.tasks.push_back(info->task);
  return absl::OkStatus();
}

absl::Status ReadOutputs(const ModelInferRequest& request, InferPlan& plan) {
  for (const auto& wanted : request.outputs()) {
    if (absl::Status status = ReadOutput(wanted, plan); !status.ok()) return status;
  }
  if (plan.outputs.empty()) {
    plan.outputs = {InferOutput::kTextOutput};
    plan.tasks = {Task::kGenerate};
  }
  return absl::OkStatus();
}

const char* Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kStop:
      return "stop";
  }
  return "none";
}

// The results of `task`, one for each element of the batch.
std::span<const GroupResult> ResultsOf(Task task, const InferPlan& plan,
                                       const std::vector<GroupResult>& results) {
  const auto index = std::find(plan.tasks.begin(), plan.tasks.end(), task) - plan.tasks.begin();
  return std::span(results).subspan(static_cast<size_t>(index) * plan.batch(), plan.batch());
}

void AddTexts(std::span<const GroupResult> results, ModelInferResponse& response) {
  std::vector<std::string_view> texts;
  for (const GroupResult& result : results) texts.push_back(result.text);
  AddBytesOutput("text_output", texts, response);
}

void AddScores(const char* name, double TextScore::*value, const InferPlan& plan,
               std::span<const GroupResult> results, ModelInferResponse& response) {
  std::vector<double> values;
  for (size_t i = 0; i < results.size(); ++i) {
    values.push_back(ScoreText(results[i].completion.logprobs, plan.text_bytes[i]).*value);
  }
  AddFp64Output(name, values, response);
}

void AddEmbeddings(std::span<const GroupResult> results, ModelInferResponse& response) {
  std::vector<std::span<const float>> rows;
  for (const GroupResult& result : results) rows.push_back(result.completion.embedding);
  AddFp32Output("embedding", rows, response);
}

void SetInteger(const char* name, int64_t value, ModelInferResponse& response) {
  (*response.mutable_parameters())[name].set_int64_param(value);
}

}  // namespace

int64_t InferPlan::input_bytes() const {
  return std::accumulate(text_bytes.begin(), text_bytes.end(), int64_t{0});
}

bool InferPlan::is_one_generation() const {
  return batch() == 1 && tasks.size() == 1 && tasks.front() == Task::kGenerate;
}

absl::StatusOr<InferPlan> PlanInfer(const ModelInferRequest& request, const ModelInfo& info,
                                    const Tokenizer& tokenizer, TimePoint deadline) {
  InferPlan plan;
  if (absl::Status status = ReadOutputs(request, plan); !status.ok()) return status;
  absl::StatusOr<InferParameters> parameters =
      ParseInferParameters(request.parameters(), info.default_sampling);
  if (!parameters.ok()) return parameters.status();
  const auto texts = DecodeTextInput(request);
  if (!texts.ok()) return texts.status();

  deadline = EarlierDeadline(deadline, *parameters);
  plan.empty_final_response = parameters->empty_final_response;
  for (const std::string_view text : *texts) {
    plan.text_bytes.push_back(static_cast<int64_t>(text.size()));
  }
  for (const Task task : plan.tasks) {
    for (const std::string_view text : *texts) {
      Request& one = plan.requests.emplace_back();
      one.task = task;
      one.tokens = tokenizer.Encode(text, /*parse_special=*/false);
      one.generate = parameters->generate;
      one.deadline = deadline;
      one.priority = parameters->priority;
    }
  }
  return plan;
}

void FillOutputs(const InferPlan& plan, const std::vector<GroupResult>& results,
                 ModelInferResponse& response) {
  for (const InferOutput output : plan.outputs) {
    switch (output) {
      case InferOutput::kTextOutput:
        AddTexts(ResultsOf(Task::kGenerate, plan, results), response);
        break;
      case InferOutput::kLogLikelihood:
        AddScores("log_likelihood", &TextScore::log_likelihood, plan,
                  ResultsOf(Task::kScore, plan, results), response);
        break;
      case InferOutput::kBitsPerByte:
        AddScores("bits_per_byte", &TextScore::bits_per_byte, plan,
                  ResultsOf(Task::kScore, plan, results), response);
        break;
      case InferOutput::kEmbedding:
        AddEmbeddings(ResultsOf(Task::kEmbed, plan, results), response);
        break;
    }
  }
  if (plan.is_one_generation()) AddFinishParameters(results.front().completion, response);
}

void AddTextOutput(std::string_view text, ModelInferResponse& response) {
  AddBytesOutput("text_output", std::span(&text, 1), response);
}

void AddFinishParameters(const Completion& completion, ModelInferResponse& response) {
  auto& parameters = *response.mutable_parameters();
  parameters["finish_reason"].set_string_param(Name(completion.finish_reason));
  parameters["seed"].set_uint64_param(completion.seed);
  SetInteger("prompt_tokens", completion.usage.prompt_tokens, response);
  SetInteger("new_tokens", completion.usage.new_tokens, response);
}

}  // namespace evaserve

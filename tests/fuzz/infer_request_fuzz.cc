// A ModelInferRequest from a stranger: what the engine would get of it keeps the engine's rules.

#include <cstdlib>

#include "models/evabyte/tokenizer.h"
#include "server/rpc/infer_plan.h"
#include "tests/fuzz/fuzz_target.h"

namespace evaserve {
namespace {

void Check(bool is_so) {
  if (!is_so) std::abort();
}

void Plan(const inference::ModelInferRequest& request) {
  static const EvaByteTokenizer tokenizer(/*has_chat_template=*/false);
  static const ModelInfo info{.vocab_size = 320, .hidden_size = 8, .max_seq_len = 4096};
  const absl::StatusOr<InferPlan> plan = PlanInfer(request, info, tokenizer, TimePoint::max());
  if (!plan.ok()) {
    const bool is_refused =
        absl::IsInvalidArgument(plan.status()) || absl::IsUnimplemented(plan.status());
    Check(is_refused && !plan.status().message().empty());
    return;
  }
  Check(!plan->requests.empty() && plan->requests.size() == plan->tasks.size() * plan->batch());
  for (const Request& one : plan->requests) {
    Check(Validate(one.generate.sampling).ok() && one.generate.max_new_tokens >= 1);
    for (const TokenId token : one.tokens) Check(token >= 0 && token < info.vocab_size);
  }
}

}  // namespace
}  // namespace evaserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  inference::ModelInferRequest request;
  if (request.ParseFromArray(data, static_cast<int>(size))) evaserve::Plan(request);
  return 0;
}

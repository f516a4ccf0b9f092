// A GenerateRequest from a stranger: chat template, sampling parameters, stop strings.

#include <cstdlib>

#include "models/evabyte/tokenizer.h"
#include "server/rpc/evaserve_requests.h"
#include "tests/fuzz/fuzz_target.h"

namespace evaserve {
namespace {

void Check(bool is_so) {
  if (!is_so) std::abort();
}

void Read(const v1::GenerateRequest& from) {
  static const EvaByteTokenizer tokenizer(/*has_chat_template=*/true);
  static const ModelInfo info{.vocab_size = 320, .hidden_size = 8, .max_seq_len = 4096};
  const absl::StatusOr<Request> request = MakeRequest(from, info, tokenizer);
  if (!request.ok()) {
    Check(absl::IsInvalidArgument(request.status()) && !request.status().message().empty());
    return;
  }
  Check(Validate(request->generate.sampling).ok() && request->generate.max_new_tokens >= 1);
  for (const std::string& stop : request->generate.stop) Check(!stop.empty());
  Check(!request->tokens.empty());
  for (const TokenId token : request->tokens) Check(token >= 0 && token < info.vocab_size);
}

}  // namespace
}  // namespace evaserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  evaserve::v1::GenerateRequest request;
  if (request.ParseFromArray(data, static_cast<int>(size))) evaserve::Read(request);
  return 0;
}

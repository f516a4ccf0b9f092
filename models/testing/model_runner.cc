#include "models/testing/model_runner.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

namespace evaserve {
namespace {

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::abort();
}

StepResult StepOne(Model& model, StepItem item) {
  const absl::Status reserved = model.Reserve(*item.sequence, std::ssize(item.tokens));
  ValueOrDie(reserved.ok() ? absl::StatusOr<int>(0) : reserved);
  return std::move(ValueOrDie(model.Step({&item, 1})).front());
}

void Append(const std::vector<float>& from, std::vector<float>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

LoadedModel::LoadedModel(const std::filesystem::path& directory, const LoadOptions& options)
    : workers(std::make_unique<SerialWorkerPool>()),
      model(ValueOrDie(LoadModel(directory, options, *workers))) {}

CutRule WholeWindows() {
  return [](int64_t) { return std::numeric_limits<int>::max(); };
}

CutRule OneByOne() {
  return [](int64_t) { return 1; };
}

Outputs RunTokens(Model& model, std::span<const TokenId> tokens, const CutRule& cut) {
  const std::unique_ptr<Sequence> sequence = model.NewSequence();
  Outputs outputs;
  while (!tokens.empty()) {
    const size_t count = std::min({tokens.size(), static_cast<size_t>(cut(sequence->length())),
                                   static_cast<size_t>(model.TokensToBoundary(*sequence))});
    const StepResult result = StepOne(model, {.sequence = sequence.get(),
                                              .tokens = tokens.first(count),
                                              .all_hidden = true,
                                              .all_logits = true});
    Append(result.hidden, outputs.hidden);
    Append(result.logits, outputs.logits);
    tokens = tokens.subspan(count);
  }
  return outputs;
}

std::vector<TokenId> Generate(Model& model, std::span<const TokenId> prompt, int64_t num_tokens,
                              SamplingParams params) {
  const std::unique_ptr<Sequence> sequence = model.NewSequence();
  Sampler sampler(std::move(params));
  sampler.Observe(prompt);
  const std::vector<TokenId>& eos = model.info().eos_tokens;
  std::vector<TokenId> generated;
  std::span<const TokenId> next = prompt;
  while (true) {
    const size_t count =
        std::min(next.size(), static_cast<size_t>(model.TokensToBoundary(*sequence)));
    const bool is_last = count == next.size();
    const StepResult result = StepOne(model, {.sequence = sequence.get(),
                                              .tokens = next.first(count),
                                              .sampler = is_last ? &sampler : nullptr});
    next = next.subspan(count);
    if (!is_last) continue;
    generated.push_back(result.sampled->chosen.token);
    const bool at_end = std::count(eos.begin(), eos.end(), generated.back()) > 0;
    if (at_end || std::ssize(generated) >= num_tokens) return generated;
    next = {&generated.back(), 1};
  }
}

}  // namespace evaserve

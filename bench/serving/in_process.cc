#include "bench/serving/in_process.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/synchronization/notification.h"

namespace evaserve {
namespace {

// Waits for the end of a request and drops its text.
class CountingSink : public ResponseSink {
 public:
  bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) override {
    return true;
  }

  void OnDone(Completion completion) override {
    completion_ = std::move(completion);
    done_.Notify();
  }

  const Completion& Wait() {
    done_.WaitForNotification();
    return completion_;
  }

 private:
  Completion completion_;
  absl::Notification done_;
};

void DieUnlessOk(const absl::Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "%s\n", status.ToString().c_str());
  abort();
}

}  // namespace

class InProcess::NoObserver : public EngineObserver {
  void OnStep(const StepStats& stats) override {}
  void OnState(const EngineState& state) override {}
  void OnFirstStep(std::chrono::microseconds queue_time) override {}
  void OnFirstToken(std::chrono::microseconds since_submit, int64_t prompt_tokens) override {}
  void OnNextToken(std::chrono::microseconds since_last_token) override {}
  void OnDone(Task task, const Completion& completion) override {}
};

InProcess::InProcess(const std::filesystem::path& model_dir, const LoadOptions& options)
    : for_model_(model_dir, options),
      for_engine_(model_dir, options),
      observer_(std::make_unique<NoObserver>()),
      engine_(std::make_unique<Engine>(std::move(for_engine_.model), EngineOptions(), *observer_)) {
}

int64_t InProcess::GenerateWithModel(const std::string& prompt, int64_t num_tokens) {
  Model& model = *for_model_.model;
  SamplingParams params = {.temperature = 0};
  // Never chosen, so that it goes on as long as the server with ignore_eos.
  for (const TokenId eos : model.info().eos_tokens) params.logit_bias.emplace_back(eos, -100.f);
  const auto tokens = model.tokenizer().Encode(prompt, /*parse_special=*/false);
  return std::ssize(Generate(model, tokens, num_tokens, params));
}

int64_t InProcess::GenerateWithEngine(const std::string& prompt, int64_t num_tokens) {
  auto sink = std::make_shared<CountingSink>();
  Request request;
  request.tokens = engine_->tokenizer().Encode(prompt, /*parse_special=*/false);
  request.generate.sampling.temperature = 0;
  request.generate.max_new_tokens = num_tokens;
  request.generate.ignore_eos = true;
  request.sink = sink;
  DieUnlessOk(engine_->Submit(std::move(request)).status());
  const Completion& completion = sink->Wait();
  DieUnlessOk(completion.status);
  return completion.usage.new_tokens;
}

}  // namespace evaserve

#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "server/engine/engine.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/recording_observer.h"
#include "tests/fakes/recording_sink.h"

namespace evaserve {

// An engine on a FakeModel, and the grips on both.
struct FakeEngine {
  explicit FakeEngine(EngineOptions options = {}, FakeModel::Options model_options = {})
      : FakeEngine(options, std::make_unique<FakeModel>(std::move(model_options))) {}

  FakeEngine(EngineOptions options, std::unique_ptr<FakeModel> model)
      : control(model->control()),
        engine(std::make_unique<Engine>(std::move(model), options, observer)) {}

  RecordingObserver observer;
  std::shared_ptr<FakeModelControl> control;
  std::unique_ptr<Engine> engine;
};

inline std::string Letters(int count) {
  std::string letters;
  for (int i = 0; i < count; ++i) letters += static_cast<char>('a' + i * 7 % 26);
  return letters;
}

// Requests for a FakeModel; a generation takes the most likely tokens.
inline Request GenerateRequest(std::string_view prompt, int64_t max_new_tokens,
                               std::shared_ptr<ResponseSink> sink) {
  Request request;
  request.tokens = FakeTokenizer().Encode(prompt, /*parse_special=*/false);
  request.generate.sampling.temperature = 0;
  request.generate.max_new_tokens = max_new_tokens;
  request.sink = std::move(sink);
  return request;
}

inline Request TextRequest(Task task, std::string_view text, std::shared_ptr<ResponseSink> sink) {
  Request request;
  request.task = task;
  request.tokens = FakeTokenizer().Encode(text, /*parse_special=*/false);
  request.sink = std::move(sink);
  return request;
}

}  // namespace evaserve

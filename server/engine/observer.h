#pragma once

#include <chrono>
#include <cstdint>

#include "server/engine/request.h"

namespace evaserve {

struct StepStats {
  int num_sequences = 0;  // or requests of tensors
  int64_t rows = 0;       // of all tensors; a sequence is one
  int prefill_tokens = 0;
  int decode_tokens = 0;
  std::chrono::microseconds duration{0};
};

struct EngineState {
  int64_t running = 0;         // sequences with a state
  int64_t waiting = 0;         // admitted later
  int64_t waiting_tokens = 0;  // of their prompts
  int64_t pages_used = 0;      // that hold something
  int64_t pages_promised = 0;  // that running sequences may come to need: what admission looks at
  int64_t pages_total = 0;
  int64_t page_bytes = 0;

  bool operator==(const EngineState&) const = default;
};

// What the engine tells about itself, without knowing who listens. Called on the engine's thread.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepStats& stats) = 0;
  virtual void OnState(const EngineState& state) = 0;  // whenever it changed
  virtual void OnFirstStep(std::chrono::microseconds queue_time) = 0;
  virtual void OnFirstToken(std::chrono::microseconds since_submit, int64_t prompt_tokens) = 0;
  virtual void OnNextToken(std::chrono::microseconds since_last_token) = 0;
  virtual void OnDone(Task task, const Completion& completion) = 0;
};

}  // namespace evaserve

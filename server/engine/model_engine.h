#pragma once

#include <chrono>
#include <optional>

#include "server/engine/observer.h"
#include "server/engine/request.h"

namespace evaserve {

// What all engines have in common, whatever their model takes. Thread-safe.
class ModelEngine {
 public:
  virtual ~ModelEngine() = default;

  // Refuses new requests from now on; those in flight go on.
  virtual void Drain() = 0;

  // Waits until nothing is in flight or `deadline` comes; true if nothing is.
  virtual bool WaitUntilIdle(TimePoint deadline) = 0;

  virtual EngineState state() const = 0;

  // How long the step that is going on has taken so far; nothing if there is none.
  virtual std::optional<std::chrono::milliseconds> step_age() const = 0;
};

}  // namespace evaserve

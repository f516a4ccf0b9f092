#pragma once

#include <memory>

#include "server/engine/engine.h"
#include "server/engine/tensor_engine.h"

namespace evaserve {

// The engine of a model of either kind, or none.
struct AnyEngine {
  std::shared_ptr<Engine> sequences;      // of a model that takes sequences of tokens
  std::shared_ptr<TensorEngine> tensors;  // of one that takes tensors

  explicit operator bool() const { return get() != nullptr; }
  ModelEngine* operator->() const { return get(); }
  bool is_shared() const { return sequences.use_count() > 1 || tensors.use_count() > 1; }

 private:
  ModelEngine* get() const {
    if (sequences != nullptr) return sequences.get();
    return tensors.get();
  }
};

}  // namespace evaserve

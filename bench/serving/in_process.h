#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "models/testing/model_runner.h"
#include "server/engine/engine.h"

namespace evaserve {

// The same generation as through the server, without the server: what gRPC costs is the difference.
// One thread runs the kernels. Aborts on an error.
class InProcess {
 public:
  InProcess(const std::filesystem::path& model_dir, const LoadOptions& options);

  // Greedy generations of `num_tokens`; both return how many tokens there were.
  int64_t GenerateWithModel(const std::string& prompt, int64_t num_tokens);
  int64_t GenerateWithEngine(const std::string& prompt, int64_t num_tokens);

 private:
  class NoObserver;

  LoadedModel for_model_;
  LoadedModel for_engine_;
  std::unique_ptr<EngineObserver> observer_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace evaserve

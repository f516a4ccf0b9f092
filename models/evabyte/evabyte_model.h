#pragma once

#include <filesystem>
#include <memory>

#include "absl/functional/function_ref.h"
#include "models/evabyte/backend.h"
#include "models/evabyte/config.h"
#include "models/evabyte/outputs.h"
#include "models/evabyte/step_batch.h"
#include "models/evabyte/tensors.h"
#include "models/evabyte/tokenizer.h"
#include "models/model.h"
#include "nlohmann/json.hpp"

namespace evaserve {

class EvaByteModel final : public Model {
 public:
  EvaByteModel(EvaByteConfig config, SamplingParams default_sampling,
               std::unique_ptr<EvaByteBackend> backend);

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  std::unique_ptr<Sequence> NewSequence() override;
  int TokensToBoundary(const Sequence& sequence) const override;
  int PagesFor(int64_t length) const override;
  StatePool state_pool() const override { return backend_->pages().state(); }
  absl::Status Reserve(Sequence& sequence, int num_tokens) override;
  absl::StatusOr<std::vector<StepResult>> Step(std::span<const StepItem> items) override;

 private:
  const EvaByteConfig config_;
  const std::unique_ptr<EvaByteBackend> backend_;
  const EvaByteGeometry geometry_;
  const EvaByteTokenizer tokenizer_;
  const ModelInfo info_;
  EvaByteOutputs outputs_;
  StepBatch batch_;
  uint64_t num_steps_ = 0;
};

using EvaByteBackendFactory = absl::FunctionRef<absl::StatusOr<std::unique_ptr<EvaByteBackend>>(
    const EvaByteConfig& config, EvaByteTensors tensors)>;

// LoadModel() for EvaByte on a backend of the caller's; `config` is the contents of the directory's
// config.json.
absl::StatusOr<std::unique_ptr<Model>> LoadEvaByteModel(const std::filesystem::path& directory,
                                                        const nlohmann::json& config,
                                                        const LoadOptions& options,
                                                        EvaByteBackendFactory make_backend);

// The same on the backend that `options` name.
absl::StatusOr<std::unique_ptr<Model>> LoadEvaByteModel(const std::filesystem::path& directory,
                                                        const nlohmann::json& config,
                                                        const LoadOptions& options,
                                                        WorkerPool& workers);

}  // namespace evaserve

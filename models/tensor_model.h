#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/worker_pool.h"
#include "models/model.h"
#include "models/tensor.h"

namespace evaserve {

struct TensorModelInfo {
  std::string architecture;  // "identity"
  std::string device = "cpu";
  std::vector<TensorSpec> inputs;   // at least 1
  std::vector<TensorSpec> outputs;  // at least 1
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;  // in memory
  // What else a client may want to know, for ModelConfig.
  std::map<std::string, std::string> parameters;
};

// A loaded model that turns tensors into tensors in one pass and keeps no state. Not thread-safe:
// one caller at a time, except info() and CountTokens().
class TensorModel {
 public:
  // Of one request: a tensor for each of info().inputs, or info().outputs, in their order. All have
  // the same batch, their first dimension.
  struct Inputs : std::vector<InputTensor> {
    using std::vector<InputTensor>::vector;

    // Whether somebody reads the output. If not, any tensor will do, so a model need not compute
    // it.
    bool Wants(size_t output) const {
      return wanted_outputs.empty() || std::ranges::count(wanted_outputs, output) > 0;
    }

    std::vector<size_t> wanted_outputs;  // by their place in info().outputs; empty: all
  };
  using Outputs = std::vector<OutputTensor>;

  virtual ~TensorModel() = default;

  virtual const TensorModelInfo& info() const = 0;

  // What a request counts for in a batch's limit of tokens, where inputs differ in length. 0: its
  // rows say enough. Thread-safe.
  //
  // Errors: InvalidArgument for tensors that Run() would refuse. A model whose inputs need a look
  // before they are known to be good looks here, where a bad request has no company to disturb.
  virtual absl::StatusOr<int64_t> CountTokens(const Inputs& /*inputs*/) const { return 0; }

  // Memory beside the weights that passes keep what they remember in; none for most models.
  // Thread-safe.
  virtual StatePool state_pool() const { return {}; }

  // Answers `requests` together; results are in their order. Each fits info().inputs, but where
  // these say -1 the shapes may differ from one request to the next.
  //
  // Requests do not influence each other: running one alone gives the same results.
  //
  // Errors: InvalidArgument for tensors that the model cannot take; ResourceExhausted if memory for
  // the pass is missing; Unavailable if the device is lost, and with it the model.
  // Cancelled if the question below is answered with false.
  virtual absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) = 0;

  // A question that Run() asks between the steps of a long pass, on its own thread: whether anybody
  // still waits for the results. Not while a pass runs.
  void set_is_wanted(std::function<bool()> is_wanted) { is_wanted_ = std::move(is_wanted); }

 protected:
  const std::function<bool()>& is_wanted() const { return is_wanted_; }

 private:
  std::function<bool()> is_wanted_ = [] { return true; };
};

// Of either kind; the pointer is never null.
using AnyModel = std::variant<std::unique_ptr<Model>, std::unique_ptr<TensorModel>>;

// Loads a model directory of any known architecture: LoadModel() says how, and with what errors.
absl::StatusOr<AnyModel> LoadAnyModel(const std::filesystem::path& directory,
                                      const LoadOptions& options, WorkerPool& pool);

}  // namespace evaserve

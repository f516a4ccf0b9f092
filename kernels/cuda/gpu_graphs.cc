#include "kernels/cuda/gpu_graphs.h"

#include <utility>

namespace evaserve {

absl::Status GpuGraphs::Run(int key, absl::FunctionRef<absl::Status()> work) {
  const auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    absl::Status status = work();
    if (status.ok()) graphs_[key] = std::nullopt;
    return status;
  }
  std::optional<GpuGraph>& graph = found->second;
  if (!graph) {
    absl::StatusOr<GpuGraph> recorded = gpu_.Record(work);
    // A graph needs some memory of its own; the work may do without one.
    if (absl::IsResourceExhausted(recorded.status())) return work();
    if (!recorded.ok()) return recorded.status();
    graph = *std::move(recorded);
  }
  return gpu_.Launch(*graph);
}

}  // namespace evaserve

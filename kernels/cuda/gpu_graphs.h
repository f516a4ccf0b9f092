#pragma once

#include <map>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "kernels/cuda/gpu.h"

namespace evaserve {

// Work that is launched over and over with the same addresses, recorded by a key that says all that
// it depends on. Not thread-safe.
class GpuGraphs {
 public:
  // `gpu` must outlive it.
  explicit GpuGraphs(Gpu& gpu) : gpu_(gpu) {}

  // Does `work`: the first time for a key as it is, later as it was recorded then.
  absl::Status Run(int key, absl::FunctionRef<absl::Status()> work);

  // Forgets all of them, since memory that they use has moved.
  void Clear() { graphs_.clear(); }

 private:
  Gpu& gpu_;
  std::map<int, std::optional<GpuGraph>> graphs_;  // without a graph: has run once
};

}  // namespace evaserve

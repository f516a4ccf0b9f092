#include "kernels/summarize.h"

namespace evaserve {

absl::Status SummarizeCpu(const SummarizeParams& params, WorkerPool& pool) {
  return SummarizeReference(params);
}

}  // namespace evaserve

#include "kernels/attend.h"

namespace evaserve {

absl::Status AttendCpu(const AttendParams& params, WorkerPool& pool) {
  return AttendReference(params);
}

}  // namespace evaserve

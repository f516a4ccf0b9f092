#include "kernels/store_slots.h"

namespace evaserve {

absl::Status StoreSlotsCpu(const StoreSlotsParams& params, WorkerPool& pool) {
  return StoreSlotsReference(params);
}

}  // namespace evaserve

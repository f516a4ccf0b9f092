#pragma once

#include <span>
#include <vector>

#include "kernels/attend.h"
#include "kernels/store_slots.h"
#include "kernels/summarize.h"
#include "models/evabyte/sequence.h"
#include "models/model.h"

namespace evaserve {

// One step as the kernels take it: the tokens of all items, one row each, in the items' order. Its
// lists keep their memory from step to step.
struct StepBatch {
  std::vector<TokenId> tokens;  // [num_rows]
  std::vector<StoreSequence> stores;
  std::vector<AttendSequence> attends;
  std::vector<SummarizeSequence> folds;  // of the windows that this step fills

  int num_rows() const { return static_cast<int>(tokens.size()); }

  // `items` are valid; what they point to must outlive the use of the batch.
  void Assign(std::span<const StepItem> items, EvaByteGeometry geometry);
};

}  // namespace evaserve

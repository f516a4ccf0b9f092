#pragma once

#include <gtest/gtest.h>

#include "models/tensor_model.h"

namespace evaserve {

// The error of a request, or ok: the same whether it is found before the request waits or when it
// runs.
inline absl::Status RefusalOf(TensorModel& model, const TensorModel::Inputs& inputs) {
  const TensorModel::Inputs* requests[] = {&inputs};
  const absl::Status status = model.Run(requests).status();
  EXPECT_EQ(model.CountTokens(inputs).status(), status);
  return status;
}

}  // namespace evaserve

#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "kernels/serial_worker_pool.h"
#include "models/eva_encoder/eva_encoder_model.h"
#include "models/eva_encoder/testing/random_encoder.h"
#include "models/eva_encoder/testing/requests.h"
#include "models/testing/refusal.h"

namespace evaserve {

// The outputs, by their places.
inline constexpr size_t kHiddenState = 0, kEmbedding = 1, kLogits = 2, kTopTokens = 3,
                        kTopLogprobs = 4, kTopWords = 5;

// A masked language model with random weights, unless a test loads another encoder.
class EncoderTest : public ::testing::Test {
 protected:
  EncoderTest() { Load(TinyMaskedLmJson()); }

  void Load(const nlohmann::json& json, const LoadOptions& options = {}) {
    RandomEncoder(json).Write(directory_.path(), json);
    auto model = LoadEvaEncoderModel(directory_.path(), json, options, workers_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  TensorModel::Outputs Run(const EncoderRequest& request) {
    const TensorModel::Inputs* requests[] = {request.inputs()};
    auto results = model_->Run(requests);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? std::move(results->front())
                        : TensorModel::Outputs(model_->info().outputs.size());
  }

  absl::Status ErrorOf(const EncoderRequest& request) {
    return RefusalOf(*model_, *request.inputs());
  }

  const TempDir directory_;
  SerialWorkerPool workers_;
  std::unique_ptr<TensorModel> model_;
};

}  // namespace evaserve

#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/serial_worker_pool.h"
#include "models/testing/golden.h"
#include "models/vision/vision_model.h"

namespace evaserve {

// Holds the logits of every golden model of this type against the official code's. `load` is its
// Load...Model().
template <typename Load>
void ExpectOfficialLogits(const std::string& model_type, Load load) {
  for (const GoldenModel& golden : GoldenModels(model_type)) {
    SCOPED_TRACE(golden.directory.string());
    SerialWorkerPool workers;
    const auto model = load(golden.directory, GoldenJson(golden.directory / "config.json"),
                            LoadOptions(), workers);
    ASSERT_TRUE(model.ok()) << model.status();
    for (const nlohmann::json& one : golden.cases) {
      const std::string name = one.at("case").get<std::string>();
      const auto image = GoldenFloats(golden.tensors, name + ".image");
      const auto expected = GoldenFloats(golden.tensors, name + ".logits");
      TensorModel::Inputs inputs(2);
      inputs[0].shape = (*model)->info().inputs[0].shape;
      inputs[0].shape[0] = one.value("batch", 1);
      inputs[0].data = {reinterpret_cast<const char*>(image.data()), image.size_bytes()};
      const TensorModel::Inputs* requests[] = {&inputs};
      const auto outputs = (*model)->Run(requests);
      ASSERT_TRUE(outputs.ok()) << outputs.status();
      const std::string& logits = (*outputs)[0][0].data;
      EXPECT_LE(
          MaxError({reinterpret_cast<const float*>(logits.data()), logits.size() / sizeof(float)},
                   expected),
          one.at("tol_fp32").at("logits").template get<double>());
    }
  }
}

}  // namespace evaserve

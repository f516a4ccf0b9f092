// The network and the whole model against the official code's outputs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/serial_worker_pool.h"
#include "models/eva_vit/eva_vit_model.h"
#include "models/eva_vit/network.h"
#include "models/testing/golden.h"
#include "models/vision/testing/official_logits.h"

namespace evaserve {
namespace {

TEST(EvaVitGoldenTest, EveryLayerIsTheOfficialOne) {
  int num_models = 0;
  for (const GoldenModel& golden : GoldenModels("eva_vit")) {
    SCOPED_TRACE(golden.directory.string());
    SerialWorkerPool workers;
    const auto config = ReadEvaVitConfig(golden.directory / "config.json",
                                         GoldenJson(golden.directory / "config.json"), {});
    ASSERT_TRUE(config.ok()) << config.status();
    const auto checkpoint = Checkpoint::Open(golden.directory);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    TensorReader reader(*checkpoint);
    auto weights = ReadEvaVitWeights(reader, *config);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EvaVitNetwork network(*config, *std::move(weights), workers);
    for (const nlohmann::json& one : golden.cases) {
      const std::string name = one.at("case").get<std::string>();
      const double tolerance = one.at("tol_fp32").at("features").get<double>();
      // Of the first image; later layers have larger values.
      network.SetProbe([&](int layer, const float* tokens) {
        const auto expected = GoldenFloats(golden.tensors, name + ".block" + std::to_string(layer));
        EXPECT_LE(MaxError({tokens, expected.size()}, expected), 10 * tolerance) << layer;
      });
      const auto image = GoldenFloats(golden.tensors, name + ".image");
      const int batch = one.at("batch").get<int>();
      std::vector<float> features(size_t(batch) * network.feature_size());
      ASSERT_TRUE(network.Run(image.data(), batch, features.data()).ok());
      EXPECT_LE(MaxError(features, GoldenFloats(golden.tensors, name + ".features")), tolerance);
    }
    ++num_models;
  }
  EXPECT_EQ(num_models, 2);
}

TEST(EvaVitGoldenTest, TheModelIsTheOfficialOne) {
  ExpectOfficialLogits("eva_vit", LoadEvaVitModel);
}

}  // namespace
}  // namespace evaserve

// The network and the whole model against the official code's outputs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/serial_worker_pool.h"
#include "models/eva_pvt/eva_pvt_model.h"
#include "models/eva_pvt/network.h"
#include "models/testing/golden.h"
#include "models/vision/testing/official_logits.h"

namespace evaserve {
namespace {

TEST(EvaPvtGoldenTest, EveryStageIsTheOfficialOne) {
  int num_models = 0;
  for (const GoldenModel& golden : GoldenModels("eva_pvt_v2")) {
    SCOPED_TRACE(golden.directory.string());
    SerialWorkerPool workers;
    const auto config = ReadEvaPvtConfig(golden.directory / "config.json",
                                         GoldenJson(golden.directory / "config.json"), {});
    ASSERT_TRUE(config.ok()) << config.status();
    const auto checkpoint = Checkpoint::Open(golden.directory);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    TensorReader reader(*checkpoint);
    auto weights = ReadEvaPvtWeights(reader, *config);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EvaPvtNetwork network(*config, *std::move(weights), workers);
    for (const nlohmann::json& one : golden.cases) {
      const std::string name = one.at("case").get<std::string>();
      const double tolerance = one.at("tol_fp32").at("features").get<double>();
      network.SetProbe([&](int stage, const float* tokens) {
        const auto expected =
            GoldenFloats(golden.tensors, name + ".stage" + std::to_string(stage + 1));
        EXPECT_LE(MaxError({tokens, expected.size()}, expected), 10 * tolerance) << stage;
      });
      const auto image = GoldenFloats(golden.tensors, name + ".image");
      const int batch = 1;
      std::vector<float> features(size_t(batch) * network.feature_size());
      ASSERT_TRUE(network.Run(image.data(), batch, features.data()).ok());
      EXPECT_LE(MaxError(features, GoldenFloats(golden.tensors, name + ".features")), tolerance);
    }
    ++num_models;
  }
  EXPECT_EQ(num_models, 1);
}

TEST(EvaPvtGoldenTest, TheModelIsTheOfficialOne) {
  ExpectOfficialLogits("eva_pvt_v2", LoadEvaPvtModel);
}

}  // namespace
}  // namespace evaserve

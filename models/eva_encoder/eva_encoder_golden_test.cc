// The whole model against the official code's outputs.
//
// The official code computes a batch at the length of its longest row: others have chunks, and
// chunks of padding, that evaserve's definition does not have. So of a batch only the rows without
// padding are compared.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/serial_worker_pool.h"
#include "models/eva_encoder/eva_encoder_model.h"
#include "models/testing/golden.h"

namespace evaserve {
namespace {

class EvaEncoderGoldenTest : public ::testing::Test {
 protected:
  // last_hidden_state of one row.
  std::vector<float> Encode(TensorModel& model, std::span<const int32_t> tokens) {
    const std::vector<int64_t> ids(tokens.begin(), tokens.end());
    TensorModel::Inputs inputs(2);
    inputs[0].shape = {1, static_cast<int64_t>(ids.size())};
    inputs[0].data = {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int64_t)};
    const TensorModel::Inputs* requests[] = {&inputs};
    const auto outputs = model.Run(requests);
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    if (!outputs.ok()) return {};
    const std::string& data = (*outputs)[0][0].data;
    const auto* values = reinterpret_cast<const float*>(data.data());
    return {values, values + data.size() / sizeof(float)};
  }

  SerialWorkerPool workers_;
};

TEST_F(EvaEncoderGoldenTest, TheModelIsTheOfficialOne) {
  int num_rows = 0;
  for (const GoldenModel& golden : GoldenModels("eva_encoder")) {
    const nlohmann::json config = GoldenJson(golden.directory / "config.json");
    const size_t size = config.at("hidden_size");
    const auto model = LoadEvaEncoderModel(golden.directory, config, {}, workers_);
    ASSERT_TRUE(model.ok()) << model.status();
    for (const nlohmann::json& one : golden.cases) {
      const std::string name = one.at("case").get<std::string>();
      const auto tokens = GoldenInts(golden.tensors, name + ".tokens");
      const auto expected = GoldenFloats(golden.tensors, name + ".encoder_out");
      const std::vector<size_t> lengths = one.at("lens");
      const size_t longest = tokens.size() / lengths.size();
      for (size_t row = 0; row < lengths.size(); ++row) {
        if (lengths[row] != longest) continue;
        SCOPED_TRACE(golden.directory.string() + " " + name);
        const auto hidden = Encode(**model, tokens.subspan(row * longest, longest));
        EXPECT_LE(MaxError(hidden, expected.subspan(row * longest * size, longest * size)),
                  one.at("tol_fp32").get<double>());
        ++num_rows;
      }
    }
  }
  EXPECT_GE(num_rows, 6);
}

TEST_F(EvaEncoderGoldenTest, BFloat16IsNear) {
  for (const GoldenModel& golden : GoldenModels("eva_encoder")) {
    const auto model =
        LoadEvaEncoderModel(golden.directory, GoldenJson(golden.directory / "config.json"),
                            {.dtype = DType::kBFloat16}, workers_);
    ASSERT_TRUE(model.ok()) << model.status();
    const auto hidden = Encode(**model, GoldenInts(golden.tensors, "c1.tokens"));
    const double error = MaxError(hidden, GoldenFloats(golden.tensors, "c1.encoder_out"));
    EXPECT_LE(error, 0.1);
    EXPECT_GE(error, 1e-4);  // not float32 by another name
  }
}

}  // namespace
}  // namespace evaserve

// The published code of the paper's EVA, at the level of one layer: x in, x out.

#include <gtest/gtest.h>

#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/causal_eva_layer.h"
#include "kernels/testing/golden_eva_layer.h"

namespace evaserve {
namespace {

class EvaGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!ForceCpuKernels(GetParam())) GTEST_SKIP() << "this machine has no " << GetParam();
  }
  ~EvaGoldenTest() override { ForceCpuKernels(usual_); }

  void CheckNoncausal(const GoldenFile& file, const nlohmann::json& c) {
    GoldenEvaLayer golden(file, c);
    const RegionShape shape = ShapeOf(c);
    const EvaLayerOptions& options = golden.options();
    EvaLayer layer(options, options.has_map_q ? golden.MapOf("adaptive_mu_q") : MapWeights{},
                   golden.MapOf("adaptive_mu_k"));
    for (int b = 0; b < c.at("batch").get<int>(); ++b) {
      Regions regions = MakeRegions(shape).value();
      EXPECT_EQ(regions.num_chunks, c.at("num_chunks"));
      layer.set_bias(BiasOf(c, golden, shape, regions));
      if (!c.at("lens").is_null()) {
        HidePads(golden.Row(golden.Get("key_padding_mask"), b), regions);
      }
      const std::vector<float> x = golden.Row(golden.Get("x"), b);
      const std::vector<float> qkv = golden.Linear({"qkv"}, x, workers_);
      const EvaLayerOutput got = layer.Run(regions, qkv, &workers_);

      golden.Check("out", golden.Linear({"proj"}, got.out, workers_),
                   golden.Row(golden.Get("out"), b));
      golden.Check("rf_k_bar", got.k_bar, golden.Row(golden.Get("rf_k_bar"), b));
      golden.Check("beta", got.beta, golden.Row(golden.Get("beta"), b));
      golden.CheckLse(regions, got.lse, golden.Row(golden.Get("lse"), b));
      if (!golden.Has("q")) continue;  // the file leaves them out of the largest map
      golden.CheckHeads("q", qkv, 0, golden.Row(golden.Get("q"), b));
      golden.CheckHeads("k", qkv, 1, golden.Row(golden.Get("k"), b));
      golden.CheckHeads("v", qkv, 2, golden.Row(golden.Get("v"), b));
    }
  }

  // Sequences of their own lengths, without the pads behind them. The published code also gives
  // results to pads, and a landmark to a chunk that has some: here there are none.
  void CheckCausal(const GoldenFile& file, const nlohmann::json& c, int tokens_per_call) {
    GoldenEvaLayer golden(file, c);
    CausalEvaOptions options;
    options.has_norm = golden.options().has_norm;
    options.shape = CausalShapeOf(c, golden.options());
    CausalEvaLayer layer(options, golden.MapOf("adaptive_mu_q"), golden.MapOf("adaptive_mu_k"));
    layer.set_bias(CausalBiasOf(c, golden, options.shape));
    for (int b = 0; b < c.at("batch").get<int>(); ++b) {
      const int length = c.at("lens").is_null() ? c.at("N") : c.at("lens")[b];
      std::vector<float> x = golden.Row(golden.Get("x"), b);
      x.resize(int64_t{length} * golden.dim());
      const std::vector<float> qkv = golden.Linear({"q_proj", "k_proj", "v_proj"}, x, workers_);
      std::vector<int> cuts(length / tokens_per_call, tokens_per_call);
      if (length % tokens_per_call != 0) cuts.push_back(length % tokens_per_call);
      const CausalEvaOutput got = layer.Run(qkv, cuts, workers_);

      std::vector<float> want = golden.Row(golden.Get("out"), b);
      want.resize(x.size());
      golden.Check("out", golden.Linear({"out_proj"}, got.out, workers_), want);
      golden.CheckLandmarks("rf_k_bar", got.k_bar, golden.Row(golden.Get("rf_k_bar"), b));
      golden.CheckLandmarks("beta", got.beta, golden.Row(golden.Get("beta"), b));
      const std::vector<float> lse = golden.Row(golden.Get("lse"), b);
      golden.CheckCausalLse(got.lse, lse);
    }
  }

  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

INSTANTIATE_TEST_SUITE_P(All, EvaGoldenTest, testing::Values("baseline", "avx2", "avx512bf16"));

TEST_P(EvaGoldenTest, Noncausal) {
  if (!GoldenFile::Exists("eva_noncausal")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("eva_noncausal");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) {
    SCOPED_TRACE(c.at("case").get<std::string>());
    CheckNoncausal(file, c);
  }
}

TEST_P(EvaGoldenTest, CausalInOneCall) {
  if (!GoldenFile::Exists("eva_causal")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("eva_causal");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) {
    SCOPED_TRACE(c.at("case").get<std::string>());
    CheckCausal(file, c, c.at("N"));
  }
}

TEST_P(EvaGoldenTest, CausalTokenByToken) {
  if (!GoldenFile::Exists("eva_causal")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("eva_causal");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) {
    SCOPED_TRACE(c.at("case").get<std::string>());
    CheckCausal(file, c, 1);
  }
}

TEST(T5BucketsGoldenTest, EveryReachableDistance) {
  if (!GoldenFile::Exists("t5_buckets")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  std::ifstream json(GoldenDir() / "t5_buckets.json");
  const nlohmann::json rows = nlohmann::json::parse(json).at("rows");
  ASSERT_FALSE(rows.empty());
  for (const auto& row : rows) {
    const T5Buckets buckets = T5BucketsFor(row.at("window"), row.at("ext"), row.at("causal"));
    EXPECT_EQ(buckets.num_buckets, row.at("num_buckets"));
    EXPECT_EQ(buckets.max_distance, row.at("max_distance"));
    int relative = row.at("rel_from");
    for (const int bucket : row.at("buckets")) {
      EXPECT_EQ(T5Bucket(relative, buckets), bucket) << row.at("window") << " " << relative;
      ++relative;
    }
  }
}

}  // namespace
}  // namespace evaserve

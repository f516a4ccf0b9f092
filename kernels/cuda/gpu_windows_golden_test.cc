#include <gtest/gtest.h>

#include "kernels/cuda/gpu_windows.h"
#include "kernels/cuda/testing/device_layer.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/golden_eva_layer.h"

namespace evaserve {
namespace {

// The published code's own inputs and outputs.
class GpuWindowsGoldenTest : public GpuWindowsTest {
 protected:
  // Rows of floats as elements of a type, and back from rows with gaps.
  static std::vector<uint16_t> Elements(const std::vector<float>& rows, DType type) {
    std::vector<uint16_t> bits(rows.size() * SizeOf(type) / 2);
    for (size_t i = 0; i < rows.size(); ++i) StoreElement(bits.data(), type, i, rows[i]);
    return bits;
  }
  static std::vector<float> Floats(const std::vector<uint16_t>& bits, DType type) {
    std::vector<float> floats(bits.size() * 2 / SizeOf(type));
    for (size_t i = 0; i < floats.size(); ++i) floats[i] = LoadElement(bits.data(), type, i);
    return floats;
  }
  static std::vector<float> WithoutGaps(const std::vector<float>& rows, int width) {
    std::vector<float> packed;
    for (size_t i = 0; i < rows.size(); i += width + kGap) {
      packed.insert(packed.end(), rows.begin() + i, rows.begin() + i + width);
    }
    return packed;
  }
  static WindowCase::Map Transposed(const MapWeights& map) {
    const size_t d = map.bias.size();
    WindowCase::Map to = {map.weight, map.bias, map.norm_weight, map.norm_bias};
    for (size_t i = 0; i < d * d; ++i) to.weight[i % d * d + i / d] = map.weight[i];
    return to;
  }

  Tensors TensorsOf(const GoldenEvaLayer& golden, const std::vector<float>& qkv, DType type) {
    const EvaLayerOptions& o = golden.options();
    Tensors tensors;
    tensors.options = {{type, o.head_dim}, o.num_heads, 1.f / std::sqrt(float(o.head_dim))};
    tensors.qkv = Elements(qkv, type);
    tensors.stride = 3 * golden.dim();
    if (o.has_map_q) tensors.map_q = Transposed(golden.MapOf("adaptive_mu_q"));
    tensors.map_k = Transposed(golden.MapOf("adaptive_mu_k"));
    return tensors;
  }

  // Root mean squares; the file's tolerances are for float32.
  static double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      difference += std::pow(double{got[i]} - want[i], 2);
      size += std::pow(double{want[i]}, 2);
    }
    return std::sqrt(difference / size);
  }
  void CheckOut(GoldenEvaLayer& golden, const std::string& projection, const Results& results,
                const std::vector<float>& want, DType type) {
    const std::vector<float> out =
        golden.Linear({projection}, WithoutGaps(Floats(results.out, type), golden.dim()), workers_);
    if (type == DType::kFloat32) {
      golden.Check("out", out, want);
    } else {
      EXPECT_LT(RelativeError(out, want), type == DType::kBFloat16 ? 1.5e-2 : 2e-3);
    }
  }

  void CheckNoncausal(const GoldenFile& file, const nlohmann::json& c, DType type) {
    GoldenEvaLayer golden(file, c);
    const RegionShape shape = ShapeOf(c);
    for (int b = 0; b < c.at("batch").get<int>(); ++b) {
      Regions regions = MakeRegions(shape).value();
      const std::vector<float> bias = BiasOf(c, golden, shape, regions);
      if (!c.at("lens").is_null()) {
        HidePads(golden.Row(golden.Get("key_padding_mask"), b), regions);
      }
      const std::vector<float> x = golden.Row(golden.Get("x"), b);
      Tensors tensors = TensorsOf(golden, golden.Linear({"qkv"}, x, workers_), type);
      tensors.bias = bias;
      const RegionItem item = {&regions, 0, 0};
      const auto plan = PlanWindows(tensors.options, {&item, 1});
      ASSERT_TRUE(plan.ok()) << plan.status();
      DeviceLayer layer(*gpu_, tensors, plan->landmark_elements);
      layer.Run(*plan);
      const Results& results = layer.results();

      CheckOut(golden, "proj", results, golden.Row(golden.Get("out"), b), type);
      if (type != DType::kFloat32) continue;
      golden.Check("rf_k_bar", Floats(results.k_bar, type), golden.Row(golden.Get("rf_k_bar"), b));
      golden.Check("beta", Floats(results.beta, type), golden.Row(golden.Get("beta"), b));
      golden.CheckLse(regions, results.lse, golden.Row(golden.Get("lse"), b));
    }
  }

  void CheckCausal(const GoldenFile& file, const nlohmann::json& c, DType type) {
    GoldenEvaLayer golden(file, c);
    const CausalEvaShape shape = CausalShapeOf(c, golden.options());
    for (int b = 0; b < c.at("batch").get<int>(); ++b) {
      const int length = c.at("lens").is_null() ? c.at("N") : c.at("lens")[b];
      std::vector<float> x = golden.Row(golden.Get("x"), b);
      x.resize(int64_t{length} * golden.dim());
      Tensors tensors =
          TensorsOf(golden, golden.Linear({"q_proj", "k_proj", "v_proj"}, x, workers_), type);
      tensors.mu_scale = 1.f;
      tensors.bias = CausalBiasOf(c, golden, shape);
      tensors.bias_is_shared = true;
      const auto plan = PlanCausal(tensors.options, shape, {&length, 1});
      ASSERT_TRUE(plan.ok()) << plan.status();
      DeviceLayer layer(*gpu_, tensors, plan->landmark_elements);
      layer.Run(*plan);
      const Results& results = layer.results();

      std::vector<float> want = golden.Row(golden.Get("out"), b);
      want.resize(x.size());
      CheckOut(golden, "out_proj", results, want, type);
      if (type != DType::kFloat32) continue;
      golden.CheckCausalLse(results.lse, golden.Row(golden.Get("lse"), b));
    }
  }

  SerialWorkerPool workers_;
};

TEST_F(GpuWindowsGoldenTest, Noncausal) {
  if (!GoldenFile::Exists("eva_noncausal")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("eva_noncausal");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) {
    for (const DType type : kTypes) {
      SCOPED_TRACE(c.at("case").get<std::string>() + " " + std::string(Name(type)));
      CheckNoncausal(file, c, type);
    }
  }
}

TEST_F(GpuWindowsGoldenTest, Causal) {
  if (!GoldenFile::Exists("eva_causal")) GTEST_SKIP() << "no golden files in " << GoldenDir();
  const GoldenFile file("eva_causal");
  ASSERT_FALSE(file.cases().empty());
  for (const auto& c : file.cases()) {
    for (const DType type : kTypes) {
      SCOPED_TRACE(c.at("case").get<std::string>() + " " + std::string(Name(type)));
      CheckCausal(file, c, type);
    }
  }
}
}  // namespace
}  // namespace evaserve

// On a device, or on the emulator where there is none: whichever the program is linked with. The
// emulator's memory ends where nobody may read on.

#include "kernels/cuda/gpu_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/cuda/testing/window_case.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/golden_eva_layer.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

constexpr int kGap = 8;  // elements between rows of results

// A layer's tensors on the host; elements are bits of the type.
struct Tensors {
  WindowOptions options;
  std::vector<uint16_t> qkv;  // rows [q | k | v]
  int64_t stride = 0;
  WindowCase::Map map_q, map_k;
  float mu_scale = 0.5f;
  std::vector<float> bias;
  bool bias_is_shared = false;

  int64_t width() const { return int64_t{options.num_heads} * options.shape.head_dim; }
  int words() const { return SizeOf(options.shape.type) / 2; }
  int64_t num_tokens() const { return std::ssize(qkv) / words() / stride; }
};

struct Results {
  std::vector<uint16_t> k_bar, beta, out;
  std::vector<float> lse;
};

template <typename T>
GpuMemory Upload(Gpu& gpu, const std::vector<T>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  auto memory = gpu.Allocate(std::max<int64_t>(bytes, 16));
  EXPECT_TRUE(memory.ok()) << memory.status();
  EXPECT_TRUE(bytes == 0 || gpu.ToDevice(memory->as<void>(), values.data(), bytes).ok());
  return *std::move(memory);
}

template <typename T>
void Download(Gpu& gpu, const GpuMemory& memory, std::vector<T>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  const absl::Status status = gpu.ToHost(values.data(), memory.as<void>(), bytes);
  EXPECT_TRUE(status.ok()) << status;
}

class DeviceMap {
 public:
  DeviceMap(Gpu& gpu, const WindowCase::Map& map)
      : has_weight_(!map.weight.empty()),
        has_norm_(!map.norm_weight.empty()),
        weight_(Upload(gpu, map.weight)),
        bias_(Upload(gpu, map.bias)),
        norm_weight_(Upload(gpu, map.norm_weight)),
        norm_bias_(Upload(gpu, map.norm_bias)) {}

  CudaMap view() const {
    if (!has_weight_) return {};
    return {weight_.as<float>(), bias_.as<float>(), has_norm_ ? norm_weight_.as<float>() : nullptr,
            has_norm_ ? norm_bias_.as<float>() : nullptr};
  }

 private:
  const bool has_weight_, has_norm_;
  const GpuMemory weight_, bias_, norm_weight_, norm_bias_;
};

// A layer on the device, and its results, which are NaN at first.
class DeviceLayer {
 public:
  DeviceLayer(Gpu& gpu, const Tensors& tensors, int64_t landmark_elements)
      : gpu_(gpu),
        tensors_(tensors),
        windows_(tensors.options, gpu),
        map_q_(gpu, tensors.map_q),
        map_k_(gpu, tensors.map_k) {
    results_.k_bar.assign(std::max<int64_t>(landmark_elements, 8) * tensors.words(), 0xffff);
    results_.beta = results_.k_bar;
    results_.out.assign(tensors.num_tokens() * (tensors.width() + kGap) * tensors.words(), 0xffff);
    results_.lse.assign(tensors.num_tokens() * tensors.options.num_heads, NAN);
    qkv_ = Upload(gpu, tensors.qkv);
    bias_ = Upload(gpu, tensors.bias);
    k_bar_ = Upload(gpu, results_.k_bar);
    beta_ = Upload(gpu, results_.beta);
    out_ = Upload(gpu, results_.out);
    lse_ = Upload(gpu, results_.lse);
  }

  const GpuMemory& qkv() const { return qkv_; }

  LandmarksLayer landmarks() const { return landmarks(qkv_); }
  WindowLayer attend() const { return attend(qkv_); }

  void Run(const WindowPlan& plan) { Run(plan, landmarks(), attend()); }
  // With queries, keys and values of the sequences in their states.
  void RunSteps(const WindowPlan& plan, const GpuMemory& state) {
    Run(plan, landmarks(state), attend(state));
  }

  const Results& results() {
    Download(gpu_, k_bar_, results_.k_bar);
    Download(gpu_, beta_, results_.beta);
    Download(gpu_, out_, results_.out);
    Download(gpu_, lse_, results_.lse);
    return results_;
  }

 private:
  const char* Part(const GpuMemory& rows, int part) const {
    return rows.as<char>() + part * tensors_.width() * SizeOf(tensors_.options.shape.type);
  }
  LandmarksLayer landmarks(const GpuMemory& rows) const {
    LandmarksLayer layer;
    layer.q = Part(rows, 0);
    layer.k = Part(rows, 1);
    layer.v = Part(rows, 2);
    layer.stride = tensors_.stride;
    layer.map_q = map_q_.view();
    layer.map_k = map_k_.view();
    layer.mu_scale = tensors_.mu_scale;
    layer.k_bar = k_bar_.as<void>();
    layer.beta = beta_.as<void>();
    return layer;
  }
  WindowLayer attend(const GpuMemory& rows) const {
    WindowLayer layer;
    layer.q = Part(qkv_, 0);
    layer.k = Part(rows, 1);
    layer.v = Part(rows, 2);
    layer.q_stride = layer.kv_stride = tensors_.stride;
    layer.k_bar = k_bar_.as<void>();
    layer.beta = beta_.as<void>();
    layer.bias = tensors_.bias.empty() ? nullptr : bias_.as<float>();
    layer.bias_is_shared = tensors_.bias_is_shared;
    layer.out = out_.as<void>();
    layer.out_stride = tensors_.width() + kGap;
    layer.lse = lse_.as<float>();
    return layer;
  }
  void Run(const WindowPlan& plan, const LandmarksLayer& landmarks, const WindowLayer& attend) {
    for (const absl::Status& status :
         {windows_.Prepare(plan), windows_.Landmarks(landmarks), windows_.Attend(attend)}) {
      ASSERT_TRUE(status.ok()) << status;
    }
  }

  Gpu& gpu_;
  const Tensors& tensors_;
  GpuWindows windows_;
  const DeviceMap map_q_, map_k_;
  Results results_;
  GpuMemory qkv_, bias_, k_bar_, beta_, out_, lse_;
};

Tensors TensorsOf(WindowCase& test) {
  const WindowLayer layer = test.attend();
  return {test.options(), test.qkv,
          test.stride(),  test.map_q,
          test.map_k,     test.landmarks().mu_scale,
          test.bias,      layer.bias_is_shared};
}

class GpuWindowsTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Gpu>> gpu = Gpu::Open(0);
    if (!gpu.ok()) GTEST_SKIP() << gpu.status();
    gpu_ = *std::move(gpu);
  }

  // Of a case, into the case.
  void Run(WindowCase& test) {
    ASSERT_EQ(test.out_stride(), test.width() + kGap);
    const Tensors tensors = TensorsOf(test);
    DeviceLayer layer(*gpu_, tensors, test.plan().landmark_elements);
    layer.Run(test.plan());
    const Results& results = layer.results();
    test.k_bar = results.k_bar;
    test.beta = results.beta;
    test.out = results.out;
    test.lse = results.lse;
  }

  std::unique_ptr<Gpu> gpu_;
};

constexpr double ToleranceOf(DType type) {
  return type == DType::kFloat32 ? 5e-6 : type == DType::kBFloat16 ? 4e-3 : 6e-4;
}
constexpr DType kTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

RegionShape Sequence(int tokens, int window, int num_landmarks, bool overlap) {
  return {1, tokens, window, num_landmarks, overlap, /*is_2d=*/false};
}
RegionShape Map(int height, int width, int window, int num_landmarks, bool overlap) {
  return {height, width, window, num_landmarks, overlap, /*is_2d=*/true};
}

const std::vector<RegionShape> kMixed = {Sequence(1, 1, 1, false),  Sequence(5, 16, 4, false),
                                         Sequence(61, 8, 8, true),  Sequence(200, 160, 4, true),
                                         Map(14, 14, 7, 49, false), Map(14, 7, 7, 32, true)};

TEST_F(GpuWindowsTest, AttendsForEveryItemOfABatch) {
  for (const DType type : kTypes) {
    for (const int head_dim : {24, 32, 64, 128}) {
      SCOPED_TRACE(testing::Message() << Name(type) << " " << head_dim);
      WindowCase test({.type = type, .head_dim = head_dim, .items = kMixed});
      Run(test);
      EXPECT_LT(test.LandmarksError(), ToleranceOf(type));
      EXPECT_LT(test.AttendError().relative, ToleranceOf(type));
      EXPECT_LT(test.AttendError().lse, 1e-4);
      EXPECT_FALSE(test.GapsAreWritten());
    }
  }
}

TEST_F(GpuWindowsTest, AddsABias) {
  for (const DType type : kTypes) {
    WindowCase test({.type = type, .items = {kMixed[5], kMixed[5]}, .has_bias = true});
    Run(test);
    EXPECT_LT(test.AttendError().relative, ToleranceOf(type)) << Name(type);
  }
}

TEST_F(GpuWindowsTest, GivesTheSameBitsAgain) {
  WindowCase once({.items = kMixed}), again({.items = kMixed});
  Run(once);
  Run(again);
  EXPECT_EQ(once.out, again.out);
  EXPECT_EQ(once.beta, again.beta);
}

// Token by token through states, whose new rows are stored on the device, as in one call.
TEST_F(GpuWindowsTest, CausalStepsGiveTheBitsOfTheWholeSequence) {
  constexpr int kLength = 37;
  for (const bool overlap : {false, true}) {
    for (const DType type : kTypes) {
      SCOPED_TRACE(testing::Message() << Name(type) << ", overlap " << overlap);
      CausalEvaShape shape{
          .num_heads = 2, .head_dim = 64, .window = 16, .chunk = 4, .overlap = overlap};
      WindowCase test(
          {.type = type, .causal = shape, .lengths = {kLength}, .has_bias = true, .seed = 3});
      Run(test);
      const std::vector<uint16_t> whole = test.out;

      const Tensors tensors = TensorsOf(test);
      const int64_t row_bytes = tensors.stride * SizeOf(type);
      const GpuMemory state =
          Upload(*gpu_, std::vector<uint16_t>(shape.num_keys() * row_bytes / 2, 0xffff));
      DeviceLayer layer(*gpu_, tensors, test.plan().landmark_elements);
      for (int i = 0; i < kLength; ++i) {
        const CausalStep step{i, i, 1, 0, 0, kLength / shape.chunk};
        const auto plan = PlanSteps(test.options(), shape, {&step, 1});
        ASSERT_TRUE(plan.ok()) << plan.status();
        const GpuMemory rows = Upload(*gpu_, plan->state_rows);
        const std::string error =
            LaunchScatterRows({layer.qkv().as<char>() + i * row_bytes, rows.as<int32_t>(),
                               state.as<void>(), row_bytes},
                              1, gpu_->stream());
        ASSERT_EQ(error, "");
        layer.RunSteps(*plan, state);
      }
      EXPECT_TRUE(layer.results().out == whole);
    }
  }
}

TEST_F(GpuWindowsTest, NamesWhatIsWrongWithALayer) {
  WindowCase test({.items = {kMixed[2], kMixed[4]}});
  const Tensors tensors = TensorsOf(test);
  const DeviceLayer device(*gpu_, tensors, test.plan().landmark_elements);
  GpuWindows windows(test.options(), *gpu_);
  ASSERT_TRUE(windows.Prepare(test.plan()).ok());
  const auto landmarks = [&](auto change) {
    LandmarksLayer layer = device.landmarks();
    change(layer);
    return std::string(windows.Landmarks(layer).message());
  };
  const auto attend = [&](auto change) {
    WindowLayer layer = device.attend();
    change(layer);
    return std::string(windows.Attend(layer).message());
  };
  EXPECT_EQ(landmarks([](auto& l) {}), "");
  EXPECT_THAT(landmarks([](auto& l) { l.stride = 388; }), HasSubstr("q has a stride of 388"));
  EXPECT_THAT(landmarks([](auto& l) { l.v = nullptr; }), HasSubstr("v is at 0"));
  EXPECT_EQ(landmarks([](auto& l) { l.map_k = {}; }), "map_k has no weight");
  EXPECT_THAT(landmarks([](auto& l) { l.map_q.norm_bias = nullptr; }), HasSubstr("map_q"));
  EXPECT_EQ(attend([](auto& l) {}), "");
  EXPECT_THAT(attend([](auto& l) { l.out_stride = 120; }), HasSubstr("out has a stride of 120"));
  EXPECT_THAT(attend([](auto& l) { l.k_bar = nullptr; }), HasSubstr("k_bar is at 0"));
  const float bias = 0.f;
  EXPECT_THAT(attend([&](auto& l) { l.bias = &bias; }), HasSubstr("different sizes"));
}

TEST(WindowPlanTest, NamesWhatTheKernelsDoNotTake) {
  const Regions regions = MakeRegions(Sequence(8, 4, 4, false)).value();
  const RegionItem item = {&regions, 0, 0};
  const auto error = [&](int head_dim, float scale) {
    const WindowOptions options{{DType::kBFloat16, head_dim}, 2, scale};
    return std::string(PlanWindows(options, {&item, 1}).status().message());
  };
  EXPECT_EQ(error(32, 1.f), "");
  EXPECT_THAT(error(12, 1.f), HasSubstr("head_dim is 12; allowed: multiples of 8"));
  EXPECT_THAT(error(136, 1.f), HasSubstr("head_dim is 136"));
  EXPECT_THAT(error(32, 0.f), HasSubstr("scale is 0"));

  const CausalEvaShape shape{.num_heads = 2, .head_dim = 32, .window = 16, .chunk = 4};
  const WindowOptions options{{DType::kBFloat16, 32}, 2, 1.f};
  const auto steps = [&](CausalStep step) {
    return std::string(PlanSteps(options, shape, {&step, 1}).status().message());
  };
  EXPECT_EQ(steps({.position = 15, .num_tokens = 1, .max_chunks = 4}), "");
  EXPECT_THAT(steps({.position = 15, .num_tokens = 2, .max_chunks = 4}),
              HasSubstr("steps[0].num_tokens is 2; allowed: 1 to 1"));
  EXPECT_THAT(steps({.position = 15, .num_tokens = 1, .max_chunks = 3}),
              HasSubstr("steps[0].max_chunks is 3; allowed: 4 or more"));
  const std::vector<int> lengths = {3, 0};
  EXPECT_THAT(std::string(PlanCausal(options, shape, lengths).status().message()),
              HasSubstr("lengths[1] is 0"));
}

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

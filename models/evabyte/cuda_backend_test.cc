// The model on a device, or on the emulator where there is none: whichever the program is linked
// with.

#include "models/evabyte/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "kernels/cuda/emulator/gpu_emulated.h"
#include "models/evabyte/evabyte_model.h"
#include "models/io/json_file.h"
#include "models/testing/golden.h"
#include "models/testing/model_runner.h"
#include "models/testing/random_model.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

absl::StatusOr<std::unique_ptr<Model>> LoadOnDevice(const std::filesystem::path& directory,
                                                    const LoadOptions& options) {
  const absl::StatusOr<nlohmann::json> json = ReadJsonObject(directory / "config.json");
  if (!json.ok()) return json.status();
  return LoadEvaByteModel(
      directory, *json, options,
      [&](const EvaByteConfig& config,
          EvaByteTensors tensors) -> absl::StatusOr<std::unique_ptr<EvaByteBackend>> {
        return EvaByteCuda::Create(config, tensors, options.state_bytes, *Gpu::Open(0));
      });
}

const LoadOptions kOptions = {.dtype = DType::kBFloat16, .state_bytes = 64 << 20};

std::unique_ptr<Model> OnDevice(const std::filesystem::path& directory,
                                const LoadOptions& options = kOptions) {
  auto model = LoadOnDevice(directory, options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

// Two windows and a bit more than a page of tokens each; head_dim 32.
EvaByteConfig DeviceConfig() {
  EvaByteConfig config = TinyConfig();
  config.hidden_size = 64;
  config.num_heads = 2;
  config.intermediate_size = 96;
  config.window = 160;
  config.chunk = 16;
  config.max_positions = 1000;
  config.dtype = DType::kBFloat16;
  return config;
}

std::vector<TokenId> RandomTokens(int count, int seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 320);
  return tokens;
}

// |a - b| / |b|, root mean squares; NaN if there is one.
double RelativeError(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0., size = 0.;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(a[i] - b[i], 2);
    size += std::pow(b[i], 2);
  }
  return std::sqrt(difference / size);
}

// What rounding of all that passes between matrix products costs a logit, about.
constexpr double kTolerance = 2e-2;  // bfloat16
constexpr std::pair<DType, double> kTolerances[] = {
    {DType::kBFloat16, kTolerance}, {DType::kFloat16, kTolerance / 8}, {DType::kFloat32, 1e-5}};

class CudaBackendTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    SetEmulatedGpu({.compute_capability = GetParam()});
    if (const auto gpu = Gpu::Open(0); !gpu.ok()) GTEST_SKIP() << gpu.status();
    WriteRandomModel(dir_.path(), DeviceConfig());
  }
  void TearDown() override { SetEmulatedGpu({}); }

  const TempDir dir_;
};

INSTANTIATE_TEST_SUITE_P(Capabilities, CudaBackendTest, testing::Values(80, 90),
                         [](const auto& info) { return "sm_" + std::to_string(info.param); });

TEST_P(CudaBackendTest, AgreesWithTheCpu) {
  const std::vector<TokenId> tokens = RandomTokens(400, 1);
  const LoadedModel cpu(dir_.path(), {.dtype = DType::kFloat32});
  const Outputs expected = RunTokens(*cpu.model, tokens, WholeWindows());
  for (const auto& [dtype, tolerance] : kTolerances) {
    SCOPED_TRACE(Name(dtype));
    const auto device = OnDevice(dir_.path(), {.dtype = dtype, .state_bytes = 64 << 20});

    const Outputs actual = RunTokens(*device, tokens, WholeWindows());

    EXPECT_LT(RelativeError(actual.hidden, expected.hidden), tolerance);
    EXPECT_LT(RelativeError(actual.logits, expected.logits), tolerance);
  }
}

TEST_P(CudaBackendTest, AnyCutGivesTheSame) {
  const std::vector<TokenId> tokens = RandomTokens(190, 2);
  const std::unique_ptr<Model> device = OnDevice(dir_.path());
  const Outputs whole = RunTokens(*device, tokens, WholeWindows());
  const CutRule cuts[] = {OneByOne(), [](int64_t done) { return static_cast<int>(1 + done % 50); }};
  for (const CutRule& cut : cuts) {
    EXPECT_LT(RelativeError(RunTokens(*device, tokens, cut).logits, whole.logits), kTolerance);
  }
}

TEST_P(CudaBackendTest, ABatchGivesEachSequenceWhatItHasAlone) {
  const std::unique_ptr<Model> device = OnDevice(dir_.path());
  const std::vector<TokenId> prompts[] = {RandomTokens(150, 3), RandomTokens(3, 4),
                                          RandomTokens(40, 5), RandomTokens(1, 6)};
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<StepItem> items;
  for (const auto& prompt : prompts) {
    sequences.push_back(device->NewSequence());
    ASSERT_TRUE(device->Reserve(*sequences.back(), std::ssize(prompt)).ok());
    items.push_back({.sequence = sequences.back().get(), .tokens = prompt, .all_logits = true});
  }

  const auto results = device->Step(items);

  ASSERT_TRUE(results.ok()) << results.status();
  for (size_t i = 0; i < items.size(); ++i) {
    const Outputs alone = RunTokens(*device, prompts[i], WholeWindows());
    EXPECT_LT(RelativeError((*results)[i].logits, alone.logits), kTolerance) << i;
  }
}

// Feeds texts of one length token by token, all together, and returns the log-probabilities of the
// tokens that follow. `between` runs in the middle.
std::vector<float> Decode(Model& model, std::span<const std::vector<TokenId>> texts,
                          const std::function<void()>& between) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (size_t i = 0; i < texts.size(); ++i) sequences.push_back(model.NewSequence());
  std::vector<float> logprobs;
  const size_t num_steps = texts[0].size() - 1;
  for (size_t step = 0; step < num_steps; ++step) {
    std::vector<StepItem> items;
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_TRUE(model.Reserve(*sequences[i], 1).ok());
      const std::span<const TokenId> text = texts[i];
      items.push_back({.sequence = sequences[i].get(),
                       .tokens = text.subspan(step, 1),
                       .targets = text.subspan(step + 1, 1)});
    }
    const auto results = model.Step(items);
    EXPECT_TRUE(results.ok()) << results.status();
    for (const StepResult& result : *results) logprobs.push_back(result.target_logprobs.at(0));
    if (step == num_steps / 2) between();
  }
  return logprobs;
}

// The graph of a decoding step is recorded at the second and repeated from then on.
TEST_P(CudaBackendTest, DecodesAsOnTheCpu) {
  const std::vector<TokenId> texts[] = {RandomTokens(20, 8), RandomTokens(20, 9),
                                        RandomTokens(20, 10)};
  const LoadedModel cpu(dir_.path(), {.dtype = DType::kFloat32});
  const std::unique_ptr<Model> device = OnDevice(dir_.path());
  const auto nothing = [] {};
  EXPECT_LT(RelativeError(Decode(*device, texts, nothing), Decode(*cpu.model, texts, nothing)),
            kTolerance);
}

// A long prompt takes more memory than decoding does, so what the graphs use moves.
TEST_P(CudaBackendTest, DecodesOnAfterALongPrompt) {
  const std::vector<TokenId> texts[] = {RandomTokens(12, 11), RandomTokens(12, 12)};
  const std::unique_ptr<Model> device = OnDevice(dir_.path()), other = OnDevice(dir_.path());
  const auto prompt = [&] { RunTokens(*device, RandomTokens(160, 13), WholeWindows()); };
  EXPECT_EQ(Decode(*device, texts, prompt), Decode(*other, texts, [] {}));
}

TEST_P(CudaBackendTest, SequencesReturnTheirPages) {
  const std::unique_ptr<Model> device = OnDevice(dir_.path());
  RunTokens(*device, RandomTokens(350, 7), WholeWindows());
  EXPECT_EQ(device->state_pool().free_pages, device->state_pool().total_pages);
}

TEST(CudaBackendGoldenTest, IsAsCloseAsTheOfficialBfloat16) {
  if (const auto gpu = Gpu::Open(0); !gpu.ok()) GTEST_SKIP() << gpu.status();
  int num_cases = 0;
  for (const GoldenModel& golden : GoldenModels("evabyte")) {
    const std::unique_ptr<Model> device = OnDevice(golden.directory);
    for (const nlohmann::json& golden_case : golden.cases) {
      if (!golden_case.contains("ref_bf16_err_native")) continue;
      const auto name = golden_case.at("case").get<std::string>() + ".";
      SCOPED_TRACE(golden.directory.filename().string() + " " + name);
      const Outputs outputs =
          RunTokens(*device, GoldenInts(golden.tensors, name + "input_ids"), WholeWindows());
      const auto expected = GoldenFloats(golden.tensors, name + "logits");
      const size_t per_token = size_t(device->info().num_pred_heads) * device->info().vocab_size;
      double mean = 0., max = 0.;
      size_t i = 0;
      for (const size_t row : golden_case.at("logit_positions").get<std::vector<size_t>>()) {
        for (size_t j = 0; j < per_token; ++j, ++i) {
          const double error = std::abs(outputs.logits[row * per_token + j] - expected[i]);
          mean += error / static_cast<double>(expected.size());
          max = error <= max ? max : error;
        }
      }
      const nlohmann::json& official = golden_case["ref_bf16_err_native"];
      EXPECT_LE(mean, official.at("mean").get<double>());
      EXPECT_LE(max, 1.5 * official.at("max").get<double>());
      ++num_cases;
    }
  }
  EXPECT_GT(num_cases, 0);
}

TEST(CudaBackendLoadTest, SaysWhatADeviceDoesNotTake) {
  if (const auto gpu = Gpu::Open(0); !gpu.ok()) GTEST_SKIP() << gpu.status();
  const TempDir dir;
  EvaByteConfig config = DeviceConfig();
  config.hidden_size = 48;
  WriteRandomModel(dir.path(), config);
  EXPECT_THAT(LoadOnDevice(dir.path(), kOptions).status(), IsError(kInvalid, "24", "32, 64, 96"));
}

TEST(CudaBackendLoadTest, SaysWhenTheDeviceIsTooSmall) {
  const TempDir dir;
  WriteRandomModel(dir.path(), DeviceConfig());
  if (!SetEmulatedGpu({.total_bytes = 1 << 20})) GTEST_SKIP() << "a real device is not too small";
  EXPECT_THAT(LoadOnDevice(dir.path(), kOptions).status(),
              IsError(absl::StatusCode::kResourceExhausted, "device memory"));
  SetEmulatedGpu({});
}

}  // namespace
}  // namespace evaserve

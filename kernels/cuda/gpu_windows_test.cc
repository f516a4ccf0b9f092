#include "kernels/cuda/gpu_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/emulator/gpu_emulated.h"
#include "kernels/cuda/testing/device_layer.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

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

TEST_F(GpuWindowsTest, LaunchesNothingWithoutAPlan) {
  WindowCase test({.items = {kMixed[2]}});
  const Tensors tensors = TensorsOf(test);
  const DeviceLayer device(*gpu_, tensors, test.plan().landmark_elements);
  const auto expect_no_plan = [&](const GpuWindows& windows) {
    EXPECT_EQ(windows.Landmarks(device.landmarks()).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(windows.Attend(device.attend()).code(), absl::StatusCode::kFailedPrecondition);
  };
  expect_no_plan(GpuWindows(test.options(), *gpu_));

  if (!SetEmulatedGpu({.total_bytes = 1 << 20})) GTEST_SKIP() << "a real device is not too small";
  const std::unique_ptr<Gpu> small = Gpu::Open(0).value();
  SetEmulatedGpu({});
  GpuWindows windows(test.options(), *small);
  ASSERT_EQ(windows.Prepare(test.plan()), absl::OkStatus());
  EXPECT_EQ(windows.Landmarks(device.landmarks()), absl::OkStatus());
  const Regions regions = MakeRegions(Sequence(1 << 18, 8, 8, false)).value();
  const RegionItem item = {&regions, 0, 0};
  const WindowPlan large = PlanWindows(test.options(), {&item, 1}).value();
  EXPECT_EQ(windows.Prepare(large).code(), absl::StatusCode::kResourceExhausted);
  expect_no_plan(windows);
  EXPECT_EQ(windows.Prepare(test.plan()), absl::OkStatus());
  EXPECT_EQ(windows.Landmarks(device.landmarks()), absl::OkStatus());
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
}  // namespace
}  // namespace evaserve

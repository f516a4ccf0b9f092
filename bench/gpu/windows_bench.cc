// The paper's EVA on the device against the bytes that it cannot do without, at the speed of the
// device's own copy, in one run. One JSON object a line. Every answer is compared with the CPU's
// before the time is taken.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "bench/gpu/device_timer.h"
#include "bench/gpu/kernel_bench_main.h"
#include "bench/gpu/windows_answer.h"
#include "kernels/cuda/gpu_windows.h"

namespace evaserve {
namespace {

constexpr DType kType = DType::kBFloat16;
// Of the root mean squares: landmarks, weights and results are rounded to bfloat16.
constexpr double kTolerance = 1e-2;

// A layer of a published model. bench/gpu/windows_baseline.py has the same maps.
struct Layer {
  const char* op = "";
  int num_heads = 0, head_dim = 0;
  RegionShape map;        // square, unless the layer is causal
  CausalEvaShape causal;  // with a window

  bool is_causal() const { return causal.window > 0; }
  int width() const { return num_heads * head_dim; }
  WindowOptions options() const {
    return {{kType, head_dim}, num_heads, 1.f / std::sqrt(static_cast<float>(head_dim))};
  }
};

constexpr RegionShape Map(int side) { return {side, side, 7, 49, false, /*is_2d=*/true}; }

// Numbers of rows that must be read or written, each once.
struct Rows {
  int64_t queries = 0, keys = 0, seen_landmarks = 0;  // for attention
  int64_t members = 0, made_landmarks = 0;            // of chunks

  double bytes(int width) const {
    const double attend = 2. * queries + 2. * keys + 2. * seen_landmarks;
    return (attend + 3. * members + 2. * made_landmarks) * width * 2;
  }
};

class Bench {
 public:
  Bench(Gpu& gpu, int repeats) : gpu_(gpu), timer_(gpu, repeats) {}

  DeviceTimer& timer() { return timer_; }

  struct Times {
    double landmarks = 0., attend = 0.;
  };
  // `answer` is what must come out of the layer's numbers, from its first row on.
  using Answer = std::function<std::vector<float>(const LayerNumbers& numbers)>;
  Times Time(const Layer& layer, const WindowPlan& plan, int64_t num_rows, const Answer& answer) {
    const int width = layer.width(), d = layer.head_dim;
    const int64_t bias_size = plan.bias_head_stride * (layer.is_causal() ? 1 : layer.num_heads);
    const LayerNumbers numbers{.num_heads = layer.num_heads,
                               .head_dim = d,
                               .qkv = Random(num_rows * 3 * width),
                               .k_bar = Random(plan.landmark_elements),
                               .beta = Random(plan.landmark_elements),
                               .map = Random((int64_t{d} + 3) * d),
                               .bias = Random(bias_size)};
    const GpuMemory qkv = Upload(Narrow(numbers.qkv)), k_bar = Upload(Narrow(numbers.k_bar)),
                    beta = Upload(Narrow(numbers.beta)), map_numbers = Upload(numbers.map),
                    bias = Upload(numbers.bias), out = Must(gpu_.Allocate(num_rows * width * 2));
    const auto* const map = map_numbers.as<float>();
    const auto* const q = qkv.as<uint16_t>();
    LandmarksLayer landmarks;
    landmarks.q = q;
    landmarks.k = q + width;
    landmarks.v = q + 2 * width;
    landmarks.stride = 3 * width;
    landmarks.map_q = landmarks.map_k = {map, map + d * d, map + d * d + d, map + d * d + 2 * d};
    landmarks.mu_scale = layer.is_causal() ? 1.f : 0.5f;
    landmarks.k_bar = k_bar.as<void>();
    landmarks.beta = beta.as<void>();
    WindowLayer attend;
    attend.q = landmarks.q;
    attend.k = landmarks.k;
    attend.v = landmarks.v;
    attend.q_stride = attend.kv_stride = landmarks.stride;
    attend.k_bar = k_bar.as<void>();
    attend.beta = beta.as<void>();
    attend.bias = bias.as<float>();
    attend.bias_is_shared = layer.is_causal();
    attend.out = out.as<void>();
    attend.out_stride = width;
    GpuWindows windows(layer.options(), gpu_);
    Must(windows.Prepare(plan));
    Must(windows.Landmarks(landmarks));
    Must(windows.Attend(attend));
    Check(layer, out, answer(numbers));
    Times times;
    times.attend = timer_.Time([&] { return windows.Attend(attend); });
    times.landmarks = timer_.Time([&] { return windows.Landmarks(landmarks); });
    return times;
  }

 private:
  // As bfloat16 has them.
  std::vector<float> Random(int64_t count) {
    std::vector<float> values(count);
    std::normal_distribution<float> normal;
    for (float& x : values) x = ToFloat(ToBFloat16(normal(random_)));
    return values;
  }
  static std::vector<BFloat16> Narrow(const std::vector<float>& values) {
    std::vector<BFloat16> narrow(values.size());
    std::ranges::transform(values, narrow.begin(), ToBFloat16);
    return narrow;
  }
  template <typename T>
  GpuMemory Upload(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    GpuMemory memory = Must(gpu_.Allocate(bytes));
    Must(gpu_.ToDevice(memory.as<void>(), values.data(), bytes));
    return memory;
  }

  // Ends the program if the answer is another.
  void Check(const Layer& layer, const GpuMemory& out, const std::vector<float>& want) {
    std::vector<BFloat16> got(want.size());
    Must(gpu_.ToHost(got.data(), out.as<void>(), static_cast<int64_t>(got.size() * 2)));
    std::vector<float> floats(got.size());
    std::ranges::transform(got, floats.begin(), [](BFloat16 x) { return ToFloat(x); });
    const double error = RelativeError(floats, want);
    if (error < kTolerance) return;
    std::fprintf(stderr, "%s: the answer is %.1e off\n", layer.op, error);
    std::exit(1);
  }

  Gpu& gpu_;
  DeviceTimer timer_;
  std::mt19937 random_{1};
};

void Print(const Layer& layer, int tokens, int batch, const Rows& rows, const Bench::Times& times,
           double copy_rate) {
  const double seconds = times.landmarks + times.attend;
  std::printf(
      "{\"op\": \"%s\", \"context\": %d, \"sequences\": %d, \"attend_us\": %.1f, "
      "\"landmarks_us\": %.1f, \"times_floor\": %.2f}\n",
      layer.op, tokens, batch, seconds * 1e6, times.landmarks * 1e6,
      seconds / (rows.bytes(layer.width()) / copy_rate));
  std::fflush(stdout);
}

void RunMaps(Bench& bench, const Layer& layer, int batch, double copy_rate) {
  const Regions regions = Must(MakeRegions(layer.map));
  std::vector<RegionItem> items;
  for (int64_t i = 0; i < batch; ++i) {
    items.push_back({&regions, i * regions.num_tokens, i * regions.num_chunks});
  }
  const WindowPlan plan = Must(PlanWindows(layer.options(), items));
  const int64_t tokens = int64_t{batch} * regions.num_tokens,
                landmarks = int64_t{batch} * regions.num_chunks;
  Print(layer, regions.num_tokens, batch, {tokens, tokens, landmarks, tokens, landmarks},
        bench.Time(layer, plan, tokens,
                   [&](const LayerNumbers& numbers) { return AnswerOfMaps(numbers, items); }),
        copy_rate);
}

void RunTexts(Bench& bench, const Layer& layer, int tokens, int batch, double copy_rate) {
  const std::vector<int> lengths(batch, tokens);
  const WindowPlan plan = Must(PlanCausal(layer.options(), layer.causal, lengths));
  const int64_t all = int64_t{batch} * tokens, landmarks = all / layer.causal.chunk;
  Print(layer, tokens, batch, {all, all, landmarks, all, landmarks},
        bench.Time(layer, plan, all,
                   [&](const LayerNumbers& numbers) {
                     return AnswerOfTexts(numbers, layer.causal, lengths);
                   }),
        copy_rate);
}

// Decoding at the end of a chunk, so that a landmark is made.
void RunSteps(Bench& bench, const Layer& layer, int position, int batch, double copy_rate) {
  const CausalEvaShape& shape = layer.causal;
  const int keys = shape.num_keys(), chunks = (position + 1) / shape.chunk;
  std::vector<CausalStep> steps;
  for (int i = 0; i < batch; ++i) {
    const int row = i * keys + position % keys;
    steps.push_back({position, row, 1, int64_t{i} * keys, int64_t{i} * chunks, chunks});
  }
  const WindowPlan plan = Must(PlanSteps(layer.options(), shape, steps));
  const int seen = position % shape.window + 1 + (position >= shape.window ? shape.extension() : 0);
  const int64_t n = batch;
  Print(
      layer, position + 1, batch, {n, n * seen, n * (chunks - 1), n * shape.chunk, n},
      bench.Time(layer, plan, n * keys,
                 [&](const LayerNumbers& numbers) { return AnswerOfSteps(numbers, shape, steps); }),
      copy_rate);
}

void Run(Bench& bench, bool is_small) {
  const double copy_rate = bench.timer().CopyRate(is_small ? 16 : 1 << 17);
  std::printf("{\"floor\": \"copy\", \"gb_per_s\": %.0f}\n", copy_rate / 1e9);
  const Layer deit{"eva deit-tiny/8", 3, 64, Map(is_small ? 14 : 28), {}};
  const Layer pvt{"eva pvtv2 stage 1", 2, 32, Map(is_small ? 14 : 56), {}};
  CausalEvaShape shape{.num_heads = 8, .head_dim = 128, .window = 128, .chunk = 8};
  if (is_small) shape.num_heads = 1;
  const Layer text{"eva wiki103", shape.num_heads, shape.head_dim, {}, shape};
  const Layer step{"eva wiki103 step", shape.num_heads, shape.head_dim, {}, shape};
  for (const int batch : {1, 8, 64}) {
    if (is_small && batch > 1) break;
    RunMaps(bench, deit, batch, copy_rate);
    RunMaps(bench, pvt, batch, copy_rate);
    RunTexts(bench, text, is_small ? 40 : 512, batch, copy_rate);
    RunSteps(bench, step, is_small ? 39 : 511, batch, copy_rate);
  }
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) {
  return evaserve::KernelBenchMain<evaserve::Bench>(
      argc, argv, "The paper's EVA on the device against the device's own copy", evaserve::Run);
}

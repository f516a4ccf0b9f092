// The device's kernels against their floors, in one run: attention of many queries against the
// device's own best matrix product, decoding and storing against its own copy. One JSON object a
// line. How the answer is checked: kernels/cuda/gpu_step_test.cc; run it first.

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

#include "bench/gpu/device_timer.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_step.h"

namespace evaserve {
namespace {

constexpr int kHeads = 32, kHeadDim = 128, kWindow = 2048, kChunk = 16;
constexpr int kWidth = kHeads * kHeadDim;
constexpr DType kType = DType::kBFloat16;

// A batch of equal sequences in the middle of the EvaByte 6.5B model.
struct Batch {
  int num_sequences = 1;
  int num_queries = 1;
  int num_summaries = 0;
  int num_window = 1;

  int64_t num_rows() const { return int64_t{num_sequences} * num_queries; }
  int pages_per_sequence() const { return CudaPagesOf(num_summaries) + CudaPagesOf(num_window); }
  int num_pages() const { return num_sequences * pages_per_sequence(); }
  // Slots that all queries of a head see.
  double visible() const {
    const double own = num_queries, before = num_window - num_queries + num_summaries;
    return num_sequences * (own * (own + 1) / 2 + own * before);
  }
  double attend_flops() const { return visible() * 4 * kHeadDim * kHeads; }
  double attend_bytes() const {
    return double(num_sequences) * (num_summaries + num_window) * 2 * kWidth * 2;
  }
};

class Bench {
 public:
  Bench(Gpu& gpu, int repeats) : gpu_(gpu), timer_(gpu, repeats) {}

  DeviceTimer& timer() { return timer_; }

  struct Times {
    double attend = 0., store = 0.;
  };
  Times TimeStep(const Batch& batch) {
    const int64_t pool_bytes = batch.num_pages() * CudaPageBytes(kHeads, kHeadDim, 2);
    const int64_t row_bytes = batch.num_rows() * kWidth * 2;
    const GpuMemory pool = Must(gpu_.Allocate(pool_bytes)),
                    qkv = Must(gpu_.Allocate(3 * row_bytes)), out = Must(gpu_.Allocate(row_bytes)),
                    angles = Must(gpu_.Allocate(int64_t{kWindow} * kHeadDim / 2 * 4)),
                    vectors = Must(gpu_.Allocate(kWidth * 4));
    GpuStep step({.shape = {kType, kHeadDim},
                  .num_heads = kHeads,
                  .chunk = kChunk,
                  .scale = 1.f / std::sqrt(float{kHeadDim})},
                 gpu_);
    Prepare(batch, step);
    auto* const q = qkv.as<uint16_t>();
    const StepLayer layer{.pool = pool.as<void>(),
                          .q = q,
                          .k = q + kWidth,
                          .v = q + 2 * kWidth,
                          .stride = 3 * kWidth,
                          .cos = angles.as<float>(),
                          .sin = angles.as<float>(),
                          .mu = vectors.as<float>(),
                          .phi = vectors.as<float>()};
    Times times;
    times.store = timer_.Time([&] { return step.Store(layer); });
    times.attend = timer_.Time([&] { return step.Attend(layer, out.as<void>(), kWidth); });
    return times;
  }

 private:
  static void Prepare(const Batch& batch, GpuStep& step) {
    std::vector<int32_t> pages(batch.num_pages()), positions(batch.num_rows());
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
    std::vector<AttendSequence> attends;
    std::vector<CudaStoreSequence> stores;
    const int before = batch.num_window - batch.num_queries;
    for (int s = 0; s < batch.num_sequences; ++s) {
      const PageList all(pages.data() + s * batch.pages_per_sequence(), batch.pages_per_sequence());
      const PageList summaries = all.first(CudaPagesOf(batch.num_summaries));
      const PageList window = all.subspan(summaries.size());
      const int row = s * batch.num_queries;
      for (int i = 0; i < batch.num_queries; ++i) positions[row + i] = before + i;
      attends.push_back({.slots = {summaries, batch.num_summaries, window, batch.num_window},
                         .query_begin = row,
                         .num_queries = batch.num_queries});
      stores.push_back({.token_begin = row,
                        .num_tokens = batch.num_queries,
                        .window_pages = window,
                        .slot_begin = before,
                        .summarize = false,
                        .summary_pages = summaries});
    }
    Must(step.Prepare({.num_rows = static_cast<int>(batch.num_rows()),
                       .positions = positions,
                       .stores = stores,
                       .attends = attends},
                      batch.num_pages()));
  }

  Gpu& gpu_;
  DeviceTimer timer_;
};

// A whole window at a position in a long text, and decoding in the middle of one.
void Run(Bench& bench, bool is_small) {
  const int gemm_size = is_small ? 64 : 8192;
  const double multiply_rate = bench.timer().MultiplyRate(gemm_size);
  const double copy_rate = bench.timer().CopyRate(is_small ? 16 : 1 << 17);
  std::printf("{\"floor\": \"multiply\", \"tflops\": %.1f}\n", multiply_rate / 1e12);
  std::printf("{\"floor\": \"copy\", \"gb_per_s\": %.0f}\n", copy_rate / 1e9);
  const int window = is_small ? 160 : kWindow;
  for (const int context : {2, 8, 32, 128}) {  // KiB of text
    const int summaries = (context * 1024 - kWindow) / kChunk / (is_small ? 64 : 1);
    const Batch prefill{1, window, summaries, window};
    const Bench::Times times = bench.TimeStep(prefill);
    const double store_bytes = double(prefill.num_rows()) * kWidth * 2 * 7;  // q twice
    std::printf(
        "{\"op\": \"prefill window\", \"context\": %d, \"attend_us\": %.1f, \"share_of_multiply\": "
        "%.2f, \"store_us\": %.1f, \"share_of_copy\": %.2f}\n",
        context * 1024, times.attend * 1e6, prefill.attend_flops() / times.attend / multiply_rate,
        times.store * 1e6, store_bytes / times.store / copy_rate);
    for (const int sequences : {1, 8, 64}) {
      if (is_small && sequences > 1) break;
      const Batch decode{sequences, 1, summaries, window / 2};
      if (decode.num_pages() * CudaPageBytes(kHeads, kHeadDim, 2) > int64_t{40} << 30) break;
      const double attend = bench.TimeStep(decode).attend;
      std::printf(
          "{\"op\": \"decode\", \"context\": %d, \"sequences\": %d, \"attend_us\": %.1f, "
          "\"times_floor\": %.2f}\n",
          context * 1024, sequences, attend * 1e6, attend / (decode.attend_bytes() / copy_rate));
    }
  }
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) {
  int repeats = 20;
  bool is_small = false;
  CLI::App app("The device's kernels against the device's own floors");
  app.add_option("--repeats", repeats, "calls in a run; the fastest of five runs counts")
      ->check(CLI::PositiveNumber);
  app.add_flag("--small", is_small, "a few tokens, to see that it runs");
  CLI11_PARSE(app, argc, argv);
  const auto gpu = evaserve::Must(evaserve::Gpu::Open(0));
  std::printf("{\"device\": \"%s\", \"compute_capability\": %d, \"multiprocessors\": %d}\n",
              gpu->info().name.c_str(), gpu->info().compute_capability,
              gpu->info().num_multiprocessors);
  evaserve::Bench bench(*gpu, is_small ? 1 : repeats);
  evaserve::Run(bench, is_small);
}

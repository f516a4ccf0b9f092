// The device's kernels against their floors, in one run: attention of many queries against the
// device's own best matrix product, decoding and storing against its own copy. One JSON object a
// line. How the answer is checked: kernels/cuda/gpu_step_test.cc; run it first.

#include <cmath>
#include <cstdio>
#include <vector>

#include "bench/gpu/device_timer.h"
#include "bench/gpu/kernel_bench_main.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/gpu_step.h"

namespace evaserve {
namespace {

constexpr int kHeads = 32, kHeadDim = 128, kWindow = 2048, kChunk = 16;
constexpr int kWidth = kHeads * kHeadDim;
constexpr DType kType = DType::kBFloat16;

// A text in the middle of the EvaByte 6.5B model.
struct Sequence {
  int num_queries = 1;
  int num_summaries = 0;
  int num_window = 1;

  // The last window of a text of so many bytes, which may not be full.
  static Sequence LastWindow(int length) {
    const int rows = (length - 1) % kWindow + 1;
    return {rows, (length - rows) / kChunk, rows};
  }

  int num_pages() const { return CudaPagesOf(num_summaries) + CudaPagesOf(num_window); }
  // Slots that all queries of a head see.
  double visible() const {
    const double own = num_queries, before = num_window - num_queries + num_summaries;
    return own * (own + 1) / 2 + own * before;
  }
};

struct Batch {
  std::vector<Sequence> sequences;

  int num_rows() const {
    int sum = 0;
    for (const Sequence& sequence : sequences) sum += sequence.num_queries;
    return sum;
  }
  int num_pages() const {
    int sum = 0;
    for (const Sequence& sequence : sequences) sum += sequence.num_pages();
    return sum;
  }
  double attend_flops() const {
    double visible = 0.;
    for (const Sequence& sequence : sequences) visible += sequence.visible();
    return visible * 4 * kHeadDim * kHeads;
  }
  double attend_bytes() const {
    double slots = 0.;
    for (const Sequence& s : sequences) slots += s.num_summaries + s.num_window;
    return slots * 2 * kWidth * 2;
  }
  double store_bytes() const { return double(num_rows()) * kWidth * 2 * 7; }  // q twice
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
    PageList left(pages);
    int row = 0;
    for (const Sequence& s : batch.sequences) {
      const PageList summaries = left.first(CudaPagesOf(s.num_summaries));
      const PageList window = left.subspan(summaries.size(), CudaPagesOf(s.num_window));
      left = left.subspan(s.num_pages());
      const int before = s.num_window - s.num_queries;
      for (int i = 0; i < s.num_queries; ++i) positions[row + i] = before + i;
      attends.push_back({.slots = {summaries, s.num_summaries, window, s.num_window},
                         .query_begin = row,
                         .num_queries = s.num_queries});
      stores.push_back({.token_begin = row,
                        .num_tokens = s.num_queries,
                        .window_pages = window,
                        .slot_begin = before,
                        .summarize = false,
                        .summary_pages = summaries});
      row += s.num_queries;
    }
    Must(step.Prepare({.num_rows = batch.num_rows(),
                       .positions = positions,
                       .stores = stores,
                       .attends = attends},
                      batch.num_pages()));
  }

  Gpu& gpu_;
  DeviceTimer timer_;
};

struct Rates {
  double multiply = 0., copy = 0.;
};

void RunPrefill(Bench& bench, const Rates& rates, const char* op, int context, const Batch& batch) {
  const Bench::Times times = bench.TimeStep(batch);
  std::printf(
      "{\"op\": \"%s\", \"context\": %d, \"sequences\": %zu, \"attend_us\": %.1f, "
      "\"share_of_multiply\": %.2f, \"store_us\": %.1f, \"share_of_copy\": %.2f}\n",
      op, context, batch.sequences.size(), times.attend * 1e6,
      batch.attend_flops() / times.attend / rates.multiply, times.store * 1e6,
      batch.store_bytes() / times.store / rates.copy);
}

// A whole window at a position in a long text, decoding in the middle of one, and texts whose
// lengths are no multiples of anything (bench/gpu/slots.py has the same batches).
void Run(Bench& bench, bool is_small) {
  const int gemm_size = is_small ? 64 : 8192;
  const Rates rates{bench.timer().MultiplyRate(gemm_size),
                    bench.timer().CopyRate(is_small ? 16 : 1 << 17)};
  std::printf("{\"floor\": \"multiply\", \"tflops\": %.1f}\n", rates.multiply / 1e12);
  std::printf("{\"floor\": \"copy\", \"gb_per_s\": %.0f}\n", rates.copy / 1e9);
  const int window = is_small ? 160 : kWindow;
  for (const int context : {2, 8, 32, 128}) {  // KiB of text
    const int summaries = (context * 1024 - kWindow) / kChunk / (is_small ? 64 : 1);
    RunPrefill(bench, rates, "prefill window", context * 1024, {{{window, summaries, window}}});
    for (const int sequences : {1, 8, 64}) {
      if (is_small && sequences > 1) break;
      const Batch decode{std::vector<Sequence>(sequences, {1, summaries, window / 2})};
      if (decode.num_pages() * CudaPageBytes(kHeads, kHeadDim, 2) > int64_t{40} << 30) break;
      const double attend = bench.TimeStep(decode).attend;
      std::printf(
          "{\"op\": \"decode\", \"context\": %d, \"sequences\": %d, \"attend_us\": %.1f, "
          "\"times_floor\": %.2f}\n",
          context * 1024, sequences, attend * 1e6, attend / (decode.attend_bytes() / rates.copy));
    }
  }
  Batch ragged;
  const std::vector<int> lengths =
      is_small ? std::vector<int>{70, 2140} : std::vector<int>{1901, 3000, 9000, 33333};
  for (const int length : lengths) ragged.sequences.push_back(Sequence::LastWindow(length));
  RunPrefill(bench, rates, "prefill ragged", lengths.back(), ragged);
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) {
  return evaserve::KernelBenchMain<evaserve::Bench>(
      argc, argv, "The device's kernels against the device's own floors", evaserve::Run);
}

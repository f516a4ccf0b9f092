// EVA attention over pages (attend and summarize) against LibTorch on one thread:
//   - scaled_dot_product_attention, called once per window on the same slots, and
//   - its fastest matrix product of the same type, as GFLOP/s.
// Runs alternate; medians. The first run of each shape checks the answer.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/triu.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/timing.h"
#include "bench/kernels/torch_gemm.h"
#include "kernels/attend.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/store_slots.h"
#include "kernels/summarize.h"

namespace evaserve {
namespace {

struct Shape {
  DType dtype = DType::kFloat32;
  int num_heads = 0, head_dim = 0, window = 0, chunk = 0, length = 0;

  int width() const { return num_heads * head_dim; }
  int num_windows() const { return (length + window - 1) / window; }
  int summaries_per_window() const { return window / chunk; }
  float scale() const { return 1.f / std::sqrt(static_cast<float>(head_dim)); }
  int tokens_of(int w) const { return std::min(window, length - w * window); }
  // Multiply-adds count two; exactly the slots that the queries see.
  double flops() const {
    double visible = 0;
    for (int w = 0; w < num_windows(); ++w) {
      const double n = tokens_of(w);
      visible += n * (n + 1) / 2 + n * w * summaries_per_window();
    }
    return visible * 4 * head_dim * num_heads;
  }
};

std::vector<float> Random(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

// One sequence, a window a step, as a model feeds it: new slots, queries and results of a step are
// in the cache. Storing the slots is not timed.
class Ours {
 public:
  Ours(const Shape& shape, const std::vector<float>& qkv)
      : shape_(shape),
        qkv_(qkv),
        step_qkv_(size_t(shape.window) * 3 * shape.width()),
        step_out_(size_t(shape.window) * shape.width()),
        out_(size_t(shape.length) * shape.width()),
        mu_(Random(shape.width(), 5)),
        phi_(Random(shape.width(), 6)) {
    pages_.layout = {shape.dtype, shape.num_heads, shape.head_dim};
    const int window_pages = (shape.window + kPageSlots - 1) / kPageSlots;
    const int summaries = shape.num_windows() * shape.summaries_per_window();
    const int summary_pages = (summaries + kPageSlots - 1) / kPageSlots;
    pages_.num_pages = shape.num_windows() * window_pages + summary_pages;
    memory_.reset(std::aligned_alloc(
        4096, (pages_.num_pages * pages_.layout.page_bytes() + 4095) / 4096 * 4096));
    pages_.data = static_cast<std::byte*>(memory_.get());
    int next = 0;
    window_pages_.resize(shape.num_windows());
    for (auto& list : window_pages_) {
      for (int i = 0; i < window_pages; ++i) list.push_back(next++);
    }
    for (int i = 0; i < summary_pages; ++i) summary_pages_.push_back(next++);
  }

  // Seconds of attend and summarize.
  double Run() {
    Stopwatch watch;
    for (int w = 0; w < shape_.num_windows(); ++w) {
      Store(w);
      watch.Start();
      Attend(w);
      Summarize(w);
      watch.Stop();
      std::copy_n(step_out_.begin(), int64_t{shape_.tokens_of(w)} * shape_.width(),
                  out_.begin() + int64_t{w} * shape_.window * shape_.width());
    }
    return watch.seconds();
  }

  const float* out(int token) const { return out_.data() + int64_t{token} * shape_.width(); }
  float Element(bool is_key, bool is_summary, int window, int slot, int head, int dim) const {
    const int page =
        is_summary ? summary_pages_[slot / kPageSlots] : window_pages_[window][slot / kPageSlots];
    const PageLayout& layout = pages_.layout;
    return is_key ? LoadElement(pages_.keys(page, head), layout.dtype,
                                layout.key_index(slot % kPageSlots, dim))
                  : LoadElement(pages_.values(page, head), layout.dtype,
                                layout.value_index(slot % kPageSlots, dim));
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };

  static void Check(const absl::Status& status) {
    if (status.ok()) return;
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    std::exit(1);
  }

  void Store(int w) {
    const std::vector<float> cos(size_t(shape_.window) * shape_.head_dim / 2, 1.f);
    const std::vector<float> sin(cos.size(), 0.f);
    const int64_t row = 3 * shape_.width();
    std::copy_n(qkv_.begin() + w * shape_.window * row, shape_.tokens_of(w) * row,
                step_qkv_.begin());
    const StoreSequence sequence = {0, shape_.tokens_of(w), window_pages_[w]};
    StoreSlotsParams store;
    store.pages = pages_;
    store.rope = {cos.data(), sin.data(), shape_.window};
    store.q = step_qkv_.data();
    store.k = store.q + shape_.width();
    store.v = store.k + shape_.width();
    store.token_stride = row;
    store.sequences = {&sequence, 1};
    Check(StoreSlotsCpu(store, workers_));
  }

  void Attend(int w) {
    const int tokens = shape_.tokens_of(w);
    const AttendSequence sequence = {
        {summary_pages_, w * shape_.summaries_per_window(), window_pages_[w], tokens},
        0,
        tokens,
        nullptr};
    AttendParams attend;
    attend.pages = pages_;
    attend.scale = shape_.scale();
    attend.q = step_qkv_.data();
    attend.q_stride = 3 * shape_.width();
    attend.out = step_out_.data();
    attend.out_stride = shape_.width();
    attend.sequences = {&sequence, 1};
    Check(AttendCpu(attend, workers_));
  }

  void Summarize(int w) {
    if (shape_.tokens_of(w) < shape_.window) return;
    const SummarizeSequence fold = {window_pages_[w], shape_.summaries_per_window(), summary_pages_,
                                    w * shape_.summaries_per_window()};
    SummarizeParams summarize;
    summarize.pages = pages_;
    summarize.chunk = shape_.chunk;
    summarize.scale = shape_.scale();
    summarize.mu = mu_.data();
    summarize.phi = phi_.data();
    summarize.sequences = {&fold, 1};
    Check(SummarizeCpu(summarize, workers_));
  }

  const Shape shape_;
  const std::vector<float> qkv_;  // [length, 3, num_heads, head_dim]
  std::vector<float> step_qkv_, step_out_;
  std::vector<float> out_;
  const std::vector<float> mu_, phi_;
  std::unique_ptr<void, Free> memory_;
  PageStore pages_;
  std::vector<std::vector<int32_t>> window_pages_;
  std::vector<int32_t> summary_pages_;
  SerialWorkerPool workers_;
};

// LibTorch on the slots of `ours`: keys and values of one window behind the summaries, which stand
// in reverse order so that those of a window are always the last ones. Copies are not timed.
class Torch {
 public:
  Torch(const Shape& shape, const Ours& ours)
      : shape_(shape),
        ours_(ours),
        most_summaries_((shape.num_windows() - 1) * shape.summaries_per_window()) {
    const auto type = shape.dtype == DType::kFloat32 ? at::kFloat : at::kBFloat16;
    const int64_t slots = most_summaries_ + shape.window;
    k_ = at::zeros({1, shape.num_heads, slots, shape.head_dim}, type);
    v_ = at::zeros_like(k_);
    q_ = at::zeros({1, shape.num_heads, shape.window, shape.head_dim}, type);
    mask_ = at::zeros({shape.window, slots}, type);
    mask_.narrow(1, most_summaries_, shape.window)
        .copy_(at::full({shape.window, shape.window}, -INFINITY, at::kFloat).triu(1));
  }

  // Seconds of all calls; compares with what ours computed if `check`.
  double Run(const std::vector<float>& qkv, bool check) {
    Stopwatch watch;
    for (int w = 0; w < shape_.num_windows(); ++w) {
      Load(qkv, w);
      const int64_t tokens = shape_.tokens_of(w);
      const int64_t summaries = int64_t{w} * shape_.summaries_per_window();
      const int64_t begin = most_summaries_ - summaries, count = summaries + tokens;
      const at::Tensor q = q_.narrow(2, 0, tokens);
      const at::Tensor k = k_.narrow(2, begin, count), v = v_.narrow(2, begin, count);
      const at::Tensor mask = mask_.narrow(0, 0, tokens).narrow(1, begin, count);
      watch.Start();
      const at::Tensor out =
          w == 0 ? at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true)
                 : at::scaled_dot_product_attention(q, k, v, mask);
      watch.Stop();
      if (check) Compare(out.to(at::kFloat), w);
    }
    return watch.seconds();
  }

  double max_error() const { return max_error_; }

 private:
  void Load(const std::vector<float>& qkv, int w) {
    const int per_window = shape_.summaries_per_window();
    for (int i = (w - 1) * per_window; w > 0 && i < w * per_window; ++i) {
      CopySlot(w, i, true, most_summaries_ - 1 - i);
    }
    at::Tensor q = at::empty({1, shape_.num_heads, shape_.window, shape_.head_dim}, at::kFloat);
    float* to = q.data_ptr<float>();
    for (int i = 0; i < shape_.tokens_of(w); ++i) {
      CopySlot(w, i, false, most_summaries_ + i);
      const float* row = qkv.data() + int64_t{w * shape_.window + i} * 3 * shape_.width();
      for (int h = 0; h < shape_.num_heads; ++h) {
        std::copy_n(row + h * shape_.head_dim, shape_.head_dim,
                    to + (int64_t{h} * shape_.window + i) * shape_.head_dim);
      }
    }
    q_.copy_(q);
  }

  void CopySlot(int w, int slot, bool is_summary, int64_t to) {
    for (int h = 0; h < shape_.num_heads; ++h) {
      for (int d = 0; d < shape_.head_dim; ++d) {
        const float key = ours_.Element(true, is_summary, w, slot, h, d);
        const float value = ours_.Element(false, is_summary, w, slot, h, d);
        const int64_t index = (h * k_.size(2) + to) * shape_.head_dim + d;
        if (shape_.dtype == DType::kFloat32) {
          k_.data_ptr<float>()[index] = key;
          v_.data_ptr<float>()[index] = value;
        } else {
          k_.data_ptr<at::BFloat16>()[index] = key;
          v_.data_ptr<at::BFloat16>()[index] = value;
        }
      }
    }
  }

  void Compare(const at::Tensor& out, int w) {
    const at::Tensor rows = out[0].transpose(0, 1).contiguous();  // [tokens, num_heads, head_dim]
    const float* want = rows.data_ptr<float>();
    for (int i = 0; i < shape_.tokens_of(w); ++i) {
      const float* got = ours_.out(w * shape_.window + i);
      for (int j = 0; j < shape_.width(); ++j) {
        const double error = std::abs(got[j] - want[int64_t{i} * shape_.width() + j]);
        if (!(error <= max_error_)) max_error_ = error;
      }
    }
  }

  const Shape shape_;
  const Ours& ours_;
  const int64_t most_summaries_;
  at::Tensor q_, k_, v_, mask_;
  double max_error_ = 0;
};

// Both sides round weights to bfloat16, so they may differ by some steps of 2^-9.
double Tolerance(DType dtype) { return dtype == DType::kFloat32 ? 2e-5 : 5e-2; }

void RunShape(const Shape& shape, int repeats, bool with_torch) {
  std::vector<float> qkv = Random(size_t(shape.length) * 3 * shape.width(), 1);
  if (shape.dtype == DType::kBFloat16) {
    for (float& x : qkv) x = ToFloat(ToBFloat16(x));
  }
  Ours ours(shape, qkv);
  ours.Run();
  std::unique_ptr<Torch> torch;
  if (with_torch) {
    torch = std::make_unique<Torch>(shape, ours);
    torch->Run(qkv, /*check=*/true);
    if (!(torch->max_error() <= Tolerance(shape.dtype))) {
      std::fprintf(stderr, "wrong answer: error %g\n", torch->max_error());
      std::exit(1);
    }
  }

  std::vector<double> our_times, torch_times, gemm;
  for (int i = 0; i < repeats; ++i) {
    our_times.push_back(ours.Run());
    if (torch) torch_times.push_back(torch->Run(qkv, false));
    gemm.push_back(MeasureTorchGemm(shape.dtype == DType::kBFloat16));
  }
  const double seconds = Median(our_times);
  const double rate = shape.flops() / seconds / 1e9, ceiling = Median(gemm);
  std::printf("%-8s %4d %5d %6d %6d %10.2f %8.1f %8.1f %6.0f%%",
              std::string(Name(shape.dtype)).c_str(), shape.head_dim, shape.num_heads, shape.window,
              shape.length, seconds * 1e3, rate, ceiling, 100 * rate / ceiling);
  if (torch) {
    const double peer = Median(torch_times);
    std::printf(" %10.2f %6.1fx %9.1e", peer * 1e3, peer / seconds, torch->max_error());
  }
  std::printf("\n");
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  std::vector<std::string> dtypes = {"float32", "bfloat16"};
  std::vector<int> head_dims = {64, 128}, windows = {256, 2048};
  std::vector<int> lengths = {2048, 8192, 32768, 65536};
  int chunk = 16, width = 256, repeats = 5;
  bool without_torch = false;
  CLI::App app("EVA attention on one thread, beside LibTorch");
  app.add_option("--dtype", dtypes, "float32, bfloat16")->delimiter(',');
  app.add_option("--head-dim", head_dims, "dimensions of a head")->delimiter(',');
  app.add_option("--window", windows, "tokens in a window")->delimiter(',');
  app.add_option("--length", lengths, "tokens in the sequence")->delimiter(',');
  app.add_option("--chunk", chunk, "tokens in a chunk")->capture_default_str();
  app.add_option("--width", width, "num_heads times head_dim")->capture_default_str();
  app.add_option("--repeats", repeats, "runs of which the median counts")->capture_default_str();
  app.add_flag("--without-torch", without_torch, "leave attention by LibTorch out");
  CLI11_PARSE(app, argc, argv);

  at::set_num_threads(1);
  const c10::InferenceMode inference;
  std::printf("# %s, one thread; GFLOP/s count the slots that queries see\n", GetCpuKernels().name);
  std::printf("%-8s %4s %5s %6s %6s %10s %8s %8s %7s %10s %7s %9s\n", "dtype", "dim", "heads",
              "window", "length", "ms", "GFLOP/s", "gemm", "share", "torch ms", "ratio", "error");
  for (const std::string& dtype : dtypes) {
    for (const int head_dim : head_dims) {
      for (const int window : windows) {
        for (const int length : lengths) {
          RunShape({dtype == "float32" ? DType::kFloat32 : DType::kBFloat16, width / head_dim,
                    head_dim, window, chunk, length},
                   repeats, !without_torch);
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

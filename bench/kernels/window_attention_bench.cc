// The attention of the paper's EVA on maps (landmarks and window_attend) on one thread, beside
// LibTorch's fastest matrix product of the same type. Runs alternate; medians. The first run checks
// the answer against the references.
//
// window_attention_peer.py compares the same layer with PyTorch's eager operations.

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/timing.h"
#include "bench/kernels/torch_gemm.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/landmarks.h"
#include "kernels/relative_bias.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/window_attend.h"

namespace evaserve {
namespace {

struct Options {
  int side = 28, window = 7, num_landmarks = 49, num_heads = 3, head_dim = 64, batch = 8;
  bool overlap = false;
  int repeats = 15;
  std::string input, output;
};

template <typename T>
T Check(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
  std::exit(1);
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

// Numbers of the input file in their order, or random ones.
class Source {
 public:
  explicit Source(const std::string& path) {
    if (!path.empty()) file_.open(path, std::ios::binary);
    if (!path.empty() && !file_) Check(absl::NotFoundError("cannot read " + path));
  }

  std::vector<float> Take(size_t size, float spread) {
    std::vector<float> values(size);
    if (file_.is_open()) {
      file_.read(reinterpret_cast<char*>(values.data()), size * sizeof(float));
      if (!file_) Check(absl::DataLossError("the input file is too short"));
    } else {
      std::normal_distribution<float> normal(0.f, spread);
      for (float& value : values) value = normal(random_);
    }
    return values;
  }

 private:
  std::ifstream file_;
  std::mt19937 random_{1};
};

struct MapWeights {
  MapWeights(Source& source, int d)
      : weight(source.Take(d * d, 1.f / std::sqrt(float(d)))),
        bias(source.Take(d, 0.1f)),
        norm_weight(source.Take(d, 1.f)),
        norm_bias(source.Take(d, 0.1f)) {
    const WeightView view = {weight.data(), DType::kFloat32, d, d};
    packed = PackedWeight::Pack({&view, 1}, DType::kFloat32);
  }
  AdaptiveMap map() const { return {&packed, bias.data(), norm_weight.data(), norm_bias.data()}; }

  std::vector<float> weight, bias, norm_weight, norm_bias;
  PackedWeight packed;
};

// A batch of maps of one shape.
class Layer {
 public:
  Layer(const Options& o, DType dtype)
      : o_(o),
        width_(o.num_heads * o.head_dim),
        shape_{o.side, o.side, o.window, o.num_landmarks, o.overlap, /*is_2d=*/true},
        regions_(Check(MakeRegions(shape_))),
        source_(o.input),
        qkv_(source_.Take(size_t(o.batch) * regions_.num_tokens * 3 * width_, 1.f)),
        map_q_(source_, o.head_dim),
        map_k_(source_, o.head_dim),
        out_(qkv_.size() / 3) {
    const int reach = o.window + shape_.extension();
    const int entries = 2 * (reach - 1) * (reach + shape_.extension() + 1) + 1;
    bias_ = Check(MapBias(source_.Take(size_t(entries) * o.num_heads, 0.5f), o.num_heads, o.window,
                          shape_.extension()));
    for (int i = 0; i < o.batch; ++i) {
      items_.push_back(
          {&regions_, int64_t{i} * regions_.num_tokens, int64_t{i} * regions_.num_chunks});
    }
    k_bar_.resize(size_t(o.batch) * regions_.num_chunks * width_);
    beta_.resize(k_bar_.size());
    SetLandmarks();
    SetAttend(dtype);
  }
  Layer(const Layer&) = delete;

  struct Seconds {
    double landmarks = 0, attend = 0;
  };

  // Map by map, as the models do it: what is between the two stays in the cache.
  Seconds Run() {
    Seconds seconds;
    for (const RegionItem& item : items_) {
      landmarks_.items = attend_.items = {&item, 1};
      seconds.landmarks += SecondsOf([&] { Check(LandmarksCpu(landmarks_, workers_)); });
      seconds.attend += SecondsOf([&] { Check(WindowAttendCpu(attend_, workers_)); });
    }
    landmarks_.items = attend_.items = items_;
    return seconds;
  }

  // The largest error of all results.
  double CheckAnswer() {
    Run();
    const std::vector<float> got = out_;
    Check(LandmarksReference(landmarks_));
    Check(WindowAttendReference(attend_));
    double error = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double difference = std::abs(double{got[i]} - out_[i]);
      if (!(difference <= error)) error = difference;
    }
    Run();
    return error;
  }

  const std::vector<float>& out() const { return out_; }
  // Multiply-adds count two.
  double attend_flops() const {
    return 4. * o_.batch * regions_.num_tokens * width_ *
           (regions_.window_keys + regions_.num_chunks);
  }

 private:
  void SetLandmarks() {
    landmarks_.items = items_;
    landmarks_.num_heads = o_.num_heads;
    landmarks_.head_dim = o_.head_dim;
    landmarks_.scale = 1.f / std::sqrt(float(o_.head_dim));
    landmarks_.q = qkv_.data();
    landmarks_.k = landmarks_.q + width_;
    landmarks_.v = landmarks_.k + width_;
    landmarks_.stride = 3 * width_;
    landmarks_.map_q = map_q_.map();
    landmarks_.map_k = map_k_.map();
    landmarks_.k_bar = k_bar_.data();
    landmarks_.beta = beta_.data();
  }

  void SetAttend(DType dtype) {
    attend_.items = items_;
    attend_.num_heads = o_.num_heads;
    attend_.head_dim = o_.head_dim;
    attend_.scale = landmarks_.scale;
    attend_.dtype = dtype;
    attend_.q = landmarks_.q;
    attend_.k = landmarks_.k;
    attend_.v = landmarks_.v;
    attend_.stride = landmarks_.stride;
    attend_.k_bar = k_bar_.data();
    attend_.beta = beta_.data();
    attend_.bias = bias_.data();
    attend_.out = out_.data();
    attend_.out_stride = width_;
  }

  const Options& o_;
  const int width_;
  const RegionShape shape_;
  const Regions regions_;
  Source source_;
  const std::vector<float> qkv_;
  const MapWeights map_q_, map_k_;
  std::vector<float> out_, bias_, k_bar_, beta_;
  std::vector<RegionItem> items_;
  LandmarksParams landmarks_;
  WindowAttendParams attend_;
  SerialWorkerPool workers_;
};

// Every operand is rounded to bfloat16, 2^-9 relative each.
double Tolerance(DType dtype) { return dtype == DType::kFloat32 ? 2e-5 : 5e-2; }

void RunType(const Options& o, DType dtype) {
  Layer layer(o, dtype);
  const double error = layer.CheckAnswer();
  if (!(error <= Tolerance(dtype))) {
    std::fprintf(stderr, "wrong answer: error %g\n", error);
    std::exit(1);
  }
  if (!o.output.empty()) {
    std::ofstream file(o.output, std::ios::binary);
    file.write(reinterpret_cast<const char*>(layer.out().data()),
               layer.out().size() * sizeof(float));
  }
  std::vector<double> landmarks, attend, gemm;
  for (int i = 0; i < o.repeats; ++i) {
    const Layer::Seconds seconds = layer.Run();
    landmarks.push_back(seconds.landmarks);
    attend.push_back(seconds.attend);
    // LibTorch has no fast bfloat16 product where the processor has none: then float32's.
    gemm.push_back(MeasureTorchGemm(dtype == DType::kBFloat16 &&
                                    std::string(GetCpuKernels().name) == "avx512bf16"));
  }
  const double seconds = Median(attend), rate = layer.attend_flops() / seconds / 1e9;
  std::printf("%-8s %12.3f %9.3f %8.1f %8.1f %6.0f%% %9.1e\n", std::string(Name(dtype)).c_str(),
              Median(landmarks) * 1e3, seconds * 1e3, rate, Median(gemm), 100 * rate / Median(gemm),
              error);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  Options o;
  std::vector<std::string> dtypes = {"float32", "bfloat16"};
  CLI::App app("EVA attention on square maps, one thread; by default as in DeiT-tiny at patch 8");
  app.add_option("--dtype", dtypes, "float32, bfloat16")->delimiter(',');
  app.add_option("--side", o.side, "tokens along a side of the map")->capture_default_str();
  app.add_option("--window", o.window, "tokens along a side of a window")->capture_default_str();
  app.add_option("--landmarks", o.num_landmarks, "landmarks of a map")->capture_default_str();
  app.add_option("--heads", o.num_heads)->capture_default_str();
  app.add_option("--head-dim", o.head_dim)->capture_default_str();
  app.add_option("--batch", o.batch, "maps")->capture_default_str();
  app.add_flag("--overlap", o.overlap, "windows and chunks see a margin");
  app.add_option("--repeats", o.repeats, "runs of which the median counts")->capture_default_str();
  app.add_option("--input", o.input, "float32: qkv, both maps, bias table");
  app.add_option("--output", o.output, "where the float32 results go");
  CLI11_PARSE(app, argc, argv);

  at::set_num_threads(1);
  const c10::InferenceMode inference;
  std::printf("# %s, one thread; GFLOP/s are those of window_attend\n", GetCpuKernels().name);
  std::printf("%-8s %12s %9s %8s %8s %7s %9s\n", "dtype", "landmarks ms", "attend ms", "GFLOP/s",
              "gemm", "share", "error");
  for (const std::string& dtype : dtypes) {
    RunType(o, dtype == "float32" ? DType::kFloat32 : DType::kBFloat16);
  }
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

// Linear layers on one thread: ours, at::linear, and LibTorch's fastest matrix product. Runs
// alternate; medians. The first run of each shape checks the answer.

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linear.h>
#include <c10/core/InferenceMode.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/timing.h"
#include "bench/kernels/torch_gemm.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/linear.h"
#include "kernels/serial_worker_pool.h"

namespace evaserve {
namespace {

std::vector<float> Random(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

double MaxError(const std::vector<float>& a, const float* b) {
  double error = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (!(difference <= error)) error = difference;
  }
  return error;
}

void RunShape(DType dtype, int rows, int in, int out, int repeats) {
  const bool is_bfloat16 = dtype == DType::kBFloat16;
  std::vector<float> x = Random(size_t(rows) * in, 1), w = Random(size_t(out) * in, 2);
  std::vector<float> y(size_t(rows) * out), gemm_y(y.size());
  const WeightView view = {w.data(), DType::kFloat32, out, in};
  const PackedWeight packed = PackedWeight::Pack({&view, 1}, dtype);
  LinearParams params;
  params.weight = &packed;
  params.x = x.data();
  params.x_stride = in;
  params.y = y.data();
  params.y_stride = out;
  params.rows = rows;
  SerialWorkerPool workers;

  TorchGemm gemm(w.data(), out, in, is_bfloat16);
  gemm.SetInput(x.data(), rows);
  const auto type = is_bfloat16 ? at::kBFloat16 : at::kFloat;
  const at::Tensor tx = at::from_blob(x.data(), {rows, in}).to(type);
  const at::Tensor tw = at::from_blob(w.data(), {out, in}).to(type);

  LinearCpu(params, workers);
  gemm.Run(gemm_y.data());
  const double error = MaxError(y, gemm_y.data()) / std::sqrt(in);
  if (!(error <= 1e-5)) {
    std::fprintf(stderr, "wrong answer: error %g\n", error);
    std::exit(1);
  }

  // Several calls in one run, so that a run takes a millisecond or so.
  const int calls = std::max(1, static_cast<int>(1e8 / (2.0 * rows * in * out)));
  std::vector<double> ours, linear, brgemm;
  for (int i = 0; i < repeats; ++i) {
    ours.push_back(SecondsOf([&] {
      for (int c = 0; c < calls; ++c) LinearCpu(params, workers);
    }));
    linear.push_back(SecondsOf([&] {
      for (int c = 0; c < calls; ++c) at::linear(tx, tw);
    }));
    brgemm.push_back(SecondsOf([&] {
      for (int c = 0; c < calls; ++c) gemm.Run(gemm_y.data());
    }));
  }
  const double flops = 2e-9 * rows * in * out * calls;
  const double seconds = Median(ours);
  std::printf("%-8s %5d %5d %5d %10.2f %9.1f %8.1f %10.1f %10.1f\n",
              std::string(Name(dtype)).c_str(), rows, in, out, seconds / calls * 1e6,
              flops / seconds, packed.bytes() * 1e-9 * calls / seconds, flops / Median(linear),
              flops / Median(brgemm));
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  std::vector<std::string> dtypes = {"float32", "bfloat16"};
  std::vector<int> rows = {1, 8, 256, 512};
  int repeats = 15;
  CLI::App app("Linear layers on one thread, beside LibTorch");
  app.add_option("--dtype", dtypes, "float32, bfloat16")->delimiter(',');
  app.add_option("--rows", rows, "rows of x")->delimiter(',');
  app.add_option("--repeats", repeats, "runs of which the median counts")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  at::set_num_threads(1);
  const c10::InferenceMode inference;
  std::printf("# %s, one thread; the last three columns but one are ours, at::linear, brgemm\n",
              GetCpuKernels().name);
  std::printf("%-8s %5s %5s %5s %10s %9s %8s %10s %10s\n", "dtype", "rows", "in", "out", "us",
              "GFLOP/s", "GB/s", "at::linear", "brgemm");
  for (const std::string& dtype : dtypes) {
    for (const int r : rows) {
      for (const auto& [in, out] : {std::pair{256, 256}, {256, 768}, {704, 256}, {2048, 768}}) {
        RunShape(dtype == "float32" ? DType::kFloat32 : DType::kBFloat16, r, in, out, repeats);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>

#include "bench/gpu/device_timer.h"
#include "kernels/cuda/gpu.h"

namespace evaserve {

// The main() of a benchmark of kernels: reads the command line, prints the device and runs
// `run(bench, is_small)` with a Bench(gpu, repeats).
template <typename Bench, typename Run>
int KernelBenchMain(int argc, char** argv, const char* description, Run run) {
  int repeats = 20;
  bool is_small = false;
  CLI::App app(description);
  app.add_option("--repeats", repeats, "calls in a run; the fastest of five runs counts")
      ->check(CLI::PositiveNumber);
  app.add_flag("--small", is_small, "a few tokens, to see that it runs");
  CLI11_PARSE(app, argc, argv);
  const auto gpu = Must(Gpu::Open(0));
  std::printf("{\"device\": \"%s\", \"compute_capability\": %d, \"multiprocessors\": %d}\n",
              gpu->info().name.c_str(), gpu->info().compute_capability,
              gpu->info().num_multiprocessors);
  Bench bench(*gpu, is_small ? 1 : repeats);
  run(bench, is_small);
  return 0;
}

}  // namespace evaserve

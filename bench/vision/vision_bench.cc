// Seconds of a forward pass of a model of images on one thread, in process: the passes as JSON, the
// logits of the last one to a file, so that whoever asks can check them. Time is this process's CPU
// time, so that what else runs on the machine counts less.
//
//   vision_bench MODEL --pixels FILE --logits FILE [--passes 3] [--dtype bfloat16]
//
// The pixels are float32 [batch, 3, size, size]; the batch follows from the file's size.

#include <CLI/CLI.hpp>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "kernels/serial_worker_pool.h"
#include "models/tensor_model.h"

namespace evaserve {
namespace {

struct Flags {
  std::string model, pixels, logits, dtype;
  int passes = 3;
};

double CpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <typename T>
T OrExit(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
  std::exit(1);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Seconds of a forward pass of a model of images, on one thread.", "vision_bench");
  app.add_option("MODEL", flags.model, "Directory")->required()->check(CLI::ExistingDirectory);
  app.add_option("--pixels", flags.pixels, "float32 [batch, 3, size, size]")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--logits", flags.logits, "Where they go: float32 [batch, classes]")->required();
  app.add_option("--passes", flags.passes, "How many are timed")->check(CLI::Range(1, 1000));
  app.add_option("--dtype", flags.dtype, "float32 or bfloat16; else what the model says");
  CLI11_PARSE(app, argc, argv);

  SerialWorkerPool workers;
  LoadOptions options;
  if (!flags.dtype.empty()) options.dtype = DTypeFromName(flags.dtype);
  AnyModel any = OrExit(LoadAnyModel(flags.model, options, workers));
  TensorModel& model = *std::get<std::unique_ptr<TensorModel>>(any);

  const std::string pixels = ReadFile(flags.pixels);
  TensorModel::Inputs inputs(model.info().inputs.size());
  inputs[0].shape = model.info().inputs[0].shape;
  const int64_t image_bytes = std::accumulate(inputs[0].shape.begin() + 1, inputs[0].shape.end(),
                                              int64_t{sizeof(float)}, std::multiplies<>());
  inputs[0].shape[0] = static_cast<int64_t>(pixels.size()) / image_bytes;
  inputs[0].data = pixels;
  const TensorModel::Inputs* requests[] = {&inputs};
  OrExit(model.Run(requests));  // warms up

  nlohmann::json seconds = nlohmann::json::array();
  for (int i = 0; i < flags.passes; ++i) {
    const double begin = CpuSeconds();
    const auto outputs = OrExit(model.Run(requests));
    seconds.push_back(CpuSeconds() - begin);
    std::ofstream(flags.logits, std::ios::binary) << outputs[0][0].data;
  }
  std::puts(nlohmann::json{{"batch", inputs[0].shape[0]}, {"seconds", seconds}}.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

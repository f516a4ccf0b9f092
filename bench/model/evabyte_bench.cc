// Bytes per second of an EvaByte model on one thread, in process. One JSON line for each case. Time
// is this process's CPU time, so that what else runs on the machine counts less.
//
//   evabyte_bench                               the random model of size S, every case
//   evabyte_bench --op decode --length 1024 --batch 8 --dtype bfloat16
//   evabyte_bench --write-model DIR             writes that model, for another program to load

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "kernels/serial_worker_pool.h"
#include "models/model.h"
#include "models/testing/random_model.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

constexpr TokenId kFirstByte = 64;
// A whole window of size S, so that every fill of the window counts and so does folding it.
constexpr int kDecodeSteps = 256;

struct Case {
  std::string op;  // "prefill" or "decode"
  DType dtype = DType::kFloat32;
  int length = 0;  // bytes: of the prompt, or before the first decoded one
  int batch = 1;
};

double CpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

std::vector<TokenId> RandomBytes(int count) {
  std::mt19937 random(1);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = kFirstByte + static_cast<TokenId>(random() % 256);
  return tokens;
}

// Sequences of one model that are at the same position.
class Batch {
 public:
  Batch(Model& model, int size) : model_(model), samplers_(size, Sampler(GreedyParams())) {
    for (int i = 0; i < size; ++i) sequences_.push_back(model.NewSequence());
    last_.resize(size, kFirstByte);
  }

  // As the server does it: in pieces of whole windows, a token drawn at the end.
  void Prefill(std::span<const TokenId> tokens) {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      for (std::span<const TokenId> rest = tokens; !rest.empty();) {
        const size_t count = std::min<size_t>(rest.size(), model_.TokensToBoundary(*sequences_[i]));
        const bool is_last = count == rest.size();
        Run({{.sequence = sequences_[i].get(),
              .tokens = rest.first(count),
              .sampler = is_last ? &samplers_[i] : nullptr}});
        rest = rest.subspan(count);
      }
    }
  }

  void Decode() {
    std::vector<StepItem> items;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      items.push_back(
          {.sequence = sequences_[i].get(), .tokens = {&last_[i], 1}, .sampler = &samplers_[i]});
    }
    const std::vector<StepResult> results = Run(items);
    for (size_t i = 0; i < results.size(); ++i) last_[i] = results[i].sampled->chosen.token;
  }

 private:
  static SamplingParams GreedyParams() { return {.temperature = 0, .seed = 1}; }

  std::vector<StepResult> Run(const std::vector<StepItem>& items) {
    for (const StepItem& item : items) {
      Check(model_.Reserve(*item.sequence, static_cast<int>(item.tokens.size())));
    }
    absl::StatusOr<std::vector<StepResult>> results = model_.Step(items);
    Check(results.status());
    return *std::move(results);
  }

  Model& model_;
  std::vector<Sampler> samplers_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<TokenId> last_;
};

double PrefillSeconds(Model& model, const Case& c, int repetitions) {
  const std::vector<TokenId> tokens = RandomBytes(c.length);
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    Batch batch(model, c.batch);
    const double begin = CpuSeconds();
    batch.Prefill(tokens);
    seconds.push_back(CpuSeconds() - begin);
  }
  return Median(seconds);
}

double DecodeSeconds(Model& model, const Case& c, int repetitions) {
  Batch batch(model, c.batch);
  batch.Prefill(RandomBytes(c.length));
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    const double begin = CpuSeconds();
    for (int step = 0; step < kDecodeSteps; ++step) batch.Decode();
    seconds.push_back(CpuSeconds() - begin);
  }
  return Median(seconds);
}

void RunCase(Model& model, const Case& c, int repetitions) {
  const bool decodes = c.op == "decode";
  const double seconds =
      decodes ? DecodeSeconds(model, c, repetitions) : PrefillSeconds(model, c, repetitions);
  const double bytes = double{1} * c.batch * (decodes ? kDecodeSteps : c.length);
  std::printf(
      "{\"peer\": \"evaserve\", \"op\": \"%s\", \"dtype\": \"%s\", \"length\": %d, \"batch\": %d, "
      "\"bytes_per_s\": %.0f, \"us_per_step\": %.1f}\n",
      c.op.c_str(), std::string(Name(c.dtype)).c_str(), c.length, c.batch, bytes / seconds,
      decodes ? seconds / kDecodeSteps * 1e6 : 0);
  std::fflush(stdout);
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int length : {1024, 8192, 32768}) cases.push_back({"prefill", dtype, length, 1});
    for (int length : {1024, 8192}) {
      for (int batch : {1, 8}) cases.push_back({"decode", dtype, length, batch});
    }
  }
  return cases;
}

int Main(int argc, char** argv) {
  std::string model_dir, write_dir, op, dtype;
  int length = 0, batch = 0, repetitions = 3;
  CLI::App app("Bytes per second of an EvaByte model on one thread");
  app.add_option("--model", model_dir, "model directory; absent: a random one of size S");
  app.add_option("--write-model", write_dir, "write that random model here and leave");
  app.add_option("--op", op, "only this")->check(CLI::IsMember({"prefill", "decode"}));
  app.add_option("--dtype", dtype, "only this")->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--length", length, "only this many bytes of context");
  app.add_option("--batch", batch, "only this many sequences");
  app.add_option("--repetitions", repetitions, "take the median of so many")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  if (!write_dir.empty()) {
    WriteRandomModel(write_dir, SizeSConfig());
    return 0;
  }
  const TempDir temp;
  if (model_dir.empty()) {
    WriteRandomModel(temp.path(), SizeSConfig());
    model_dir = temp.path();
  }
  SerialWorkerPool workers;
  for (DType type : {DType::kFloat32, DType::kBFloat16}) {
    if (!dtype.empty() && dtype != Name(type)) continue;
    auto model = LoadModel(model_dir, {.dtype = type}, workers);
    Check(model.status());
    for (const Case& c : AllCases()) {
      if (c.dtype != type || (!op.empty() && c.op != op)) continue;
      if ((length > 0 && c.length != length) || (batch > 0 && c.batch != batch)) continue;
      RunCase(**model, c, repetitions);
    }
  }
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

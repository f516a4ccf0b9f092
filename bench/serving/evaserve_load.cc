// Generates load on a running server and compares with the same work without a server. run.sh
// starts both. Alternates what it compares, and prints medians.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/serving/in_process.h"
#include "client/client.h"

namespace evaserve {
namespace {

constexpr double kLeastOfInProcess = 0.85;  // one stream through gRPC
constexpr double kLeastOfOneStream = 1.6;   // all streams together

struct Flags {
  std::string server = "localhost:8001";
  std::string model_dir;
  std::string dtype = "auto";
  int64_t new_tokens = 2000;
  int num_streams = 8;
  int num_rounds = 5;
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Tokens per second of `generate`, which returns how many it made.
double Rate(const std::function<int64_t()>& generate) {
  const absl::Time start = absl::Now();
  const int64_t num_tokens = generate();
  return num_tokens / absl::ToDoubleSeconds(absl::Now() - start);
}

// One stream's tokens; exits on an error.
int64_t GenerateThroughGrpc(Client& client, const std::string& prompt, int64_t num_tokens) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_new_tokens(num_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  GenerateStream stream = client.Generate(request);
  int64_t new_tokens = 0;
  while (auto response = stream.Next()) new_tokens = response->finish().usage().new_tokens();
  if (absl::Status status = stream.Finish(); !status.ok()) {
    absl::FPrintF(stderr, "%s\n", status.ToString());
    exit(1);
  }
  return new_tokens;
}

int64_t GenerateTogether(Client& client, const std::string& prompt, const Flags& flags) {
  std::vector<int64_t> counts(flags.num_streams);
  std::vector<std::thread> threads;
  for (int64_t& count : counts) {
    threads.emplace_back([&] { count = GenerateThroughGrpc(client, prompt, flags.new_tokens); });
  }
  for (std::thread& thread : threads) thread.join();
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Seconds from a request to its first byte.
double FirstByteSeconds(Client& client, const std::string& prompt) {
  const absl::Time start = absl::Now();
  GenerateThroughGrpc(client, prompt, 1);
  return absl::ToDoubleSeconds(absl::Now() - start);
}

struct Rates {
  std::vector<double> model;
  std::vector<double> engine;
  std::vector<double> one_stream;
  std::vector<double> all_streams;
  std::vector<double> first_byte_s;
};

Rates Measure(const Flags& flags, const LoadOptions& load_options) {
  const std::string prompt = "It is a truth universally acknowledged, that a single man ";
  Client client(flags.server);
  InProcess in_process(flags.model_dir, load_options);
  GenerateThroughGrpc(client, prompt, flags.new_tokens);  // both warm
  in_process.GenerateWithModel(prompt, flags.new_tokens);

  Rates rates;
  for (int i = 0; i < flags.num_rounds; ++i) {
    rates.model.push_back(
        Rate([&] { return in_process.GenerateWithModel(prompt, flags.new_tokens); }));
    rates.one_stream.push_back(
        Rate([&] { return GenerateThroughGrpc(client, prompt, flags.new_tokens); }));
    rates.engine.push_back(
        Rate([&] { return in_process.GenerateWithEngine(prompt, flags.new_tokens); }));
    rates.all_streams.push_back(Rate([&] { return GenerateTogether(client, prompt, flags); }));
    rates.first_byte_s.push_back(FirstByteSeconds(client, prompt));
  }
  return rates;
}

void Print(const Rates& rates, const Flags& flags) {
  const double model = Median(rates.model);
  const double one_stream = Median(rates.one_stream);
  const double all_streams = Median(rates.all_streams);
  absl::PrintF("%-28s %10s\n", "", "bytes/s");
  absl::PrintF("%-28s %10.0f\n", "model alone, in process", model);
  absl::PrintF("%-28s %10.0f  %.2f of the model alone\n", "engine, in process",
               Median(rates.engine), Median(rates.engine) / model);
  absl::PrintF("%-28s %10.0f  %.2f of the model alone (target %.2f)\n", "one stream, gRPC",
               one_stream, one_stream / model, kLeastOfInProcess);
  absl::PrintF("%-28s %10.0f  %.2f of one stream (target %.2f)\n",
               absl::StrFormat("%d streams, gRPC", flags.num_streams), all_streams,
               all_streams / one_stream, kLeastOfOneStream);
  absl::PrintF("%-28s %10.2f  ms, idle server\n", "first byte, gRPC",
               Median(rates.first_byte_s) * 1e3);
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Load on a running evaserve, and the same work without it.", "evaserve_load");
  app.add_option("--server", flags.server, "HOST:PORT; it serves one model")->capture_default_str();
  app.add_option("--model-dir", flags.model_dir, "The model that it serves")->required();
  app.add_option("--dtype", flags.dtype, "As the server's")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--new-tokens", flags.new_tokens, "Of each generation")->capture_default_str();
  app.add_option("--streams", flags.num_streams, "At the same time")->capture_default_str();
  app.add_option("--rounds", flags.num_rounds, "Of which the medians are shown")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  LoadOptions load_options;
  if (flags.dtype == "float32") load_options.dtype = DType::kFloat32;
  if (flags.dtype == "bfloat16") load_options.dtype = DType::kBFloat16;
  Print(Measure(flags, load_options), flags);
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

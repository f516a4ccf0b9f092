// The whole EvaByte 6.5B model on a device, with random weights, against its floors in one run:
// prefill against the device's own matrix products, decoding against reading weights and state
// once. One JSON object a line. How the answer is checked: models/evabyte/cuda_backend_test.cc.

#include <CLI/CLI.hpp>
#include <chrono>
#include <random>
#include <vector>

#include "bench/gpu/device_timer.h"
#include "models/evabyte/cuda_backend.h"
#include "models/evabyte/evabyte_model.h"

namespace evaserve {
namespace {

struct Flags {
  int num_layers = 32;
  int state_gib = 24;
  bool is_small = false;
};

// https://huggingface.co/EvaByte/EvaByte, but for the length.
EvaByteConfig ConfigOf(const Flags& flags) {
  EvaByteConfig config;
  config.vocab_size = 320;
  config.hidden_size = flags.is_small ? 64 : 4096;
  config.intermediate_size = flags.is_small ? 96 : 11008;
  config.num_layers = flags.is_small ? 2 : flags.num_layers;
  config.num_heads = flags.is_small ? 2 : 32;
  config.num_pred_heads = 8;
  config.window = flags.is_small ? 160 : 2048;
  config.chunk = 16;
  config.max_positions = flags.is_small ? 1000 : 132 * 1024;
  config.dtype = DType::kBFloat16;
  return config;
}

// All matrices are views of the same random numbers; on the device each has its own memory.
class RandomWeights {
 public:
  explicit RandomWeights(const EvaByteConfig& config) : config_(config) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.f, 1.f / std::sqrt(float(config.hidden_size)));
    numbers_.resize(int64_t{2} * config.intermediate_size * config.hidden_size);
    // Drawing them all takes a minute; what repeats every few thousand is as random to a device.
    constexpr size_t kPeriod = 65521;
    for (size_t i = 0; i < numbers_.size(); ++i) {
      numbers_[i] = i < kPeriod ? ToBFloat16(normal(random)) : numbers_[i - kPeriod];
    }
  }

  EvaByteTensors Tensors() const {
    const int64_t hidden = config_.hidden_size, inter = config_.intermediate_size;
    EvaByteTensors tensors;
    tensors.embedding.assign(config_.vocab_size * hidden, 0.5f);
    for (size_t i = 0; i < tensors.embedding.size(); i += 3) tensors.embedding[i] = -1.f;
    for (int i = 0; i < config_.num_layers; ++i) {
      tensors.layers.push_back({.attention_norm = Ones(),
                                .mlp_norm = Ones(),
                                .mu = std::vector<float>(hidden, 0.01f),
                                .phi = std::vector<float>(hidden, 0.02f),
                                .qkv = {View(3 * hidden, hidden)},
                                .out = {View(hidden, hidden)},
                                .gate_up = {View(2 * inter, hidden)},
                                .down = {View(hidden, inter)}});
    }
    tensors.final_norm = Ones();
    tensors.lm_head = {View(int64_t{config_.num_pred_heads} * config_.vocab_size, hidden)};
    return tensors;
  }

  // Of one layer's matrices.
  int64_t layer_elements() const {
    return int64_t{config_.hidden_size} *
           (4 * config_.hidden_size + 3 * int64_t{config_.intermediate_size});
  }

 private:
  WeightView View(int64_t out, int64_t in) const {
    return {numbers_.data(), DType::kBFloat16, out, in};
  }
  std::vector<float> Ones() const { return std::vector<float>(config_.hidden_size, 1.f); }

  const EvaByteConfig& config_;
  std::vector<BFloat16> numbers_;
};

class Bench {
 public:
  Bench(Model& model, const EvaByteConfig& config, int64_t layer_elements, double multiply_rate,
        double copy_rate)
      : model_(model),
        config_(config),
        layer_elements_(layer_elements),
        multiply_rate_(multiply_rate),
        copy_rate_(copy_rate) {}

  // A prompt of `length` tokens, then `num_steps` decoding steps of `num_sequences` such prompts.
  void Run(int length, int num_sequences, int num_steps) {
    std::vector<std::unique_ptr<Sequence>> sequences;
    double prefill = 0.;
    for (int i = 0; i < num_sequences; ++i) {
      sequences.push_back(model_.NewSequence());
      prefill = Prefill(*sequences.back(), length);
      if (prefill < 0.) return;
    }
    if (num_sequences == 1) {
      std::printf("{\"op\": \"model prefill\", \"context\": %d, \"ms\": %.2f, \"share\": %.3f}\n",
                  length, prefill * 1e3, PrefillFloor(length) / prefill);
    }
    const double decode = Decode(sequences, num_steps);
    std::printf(
        "{\"op\": \"model decode\", \"context\": %d, \"sequences\": %d, \"ms\": %.3f, "
        "\"times_floor\": %.2f}\n",
        length, num_sequences, decode * 1e3, decode / DecodeFloor(length, num_sequences));
    std::fflush(stdout);
  }

 private:
  static double SecondsSince(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // Seconds; negative if the state pool has no room.
  double Prefill(Sequence& sequence, int length) {
    const auto start = std::chrono::steady_clock::now();
    while (sequence.length() < length) {
      const std::vector<TokenId> tokens(
          std::min<int64_t>(model_.TokensToBoundary(sequence), length - sequence.length()), 100);
      if (!model_.Reserve(sequence, static_cast<int>(tokens.size())).ok()) return -1.;
      const StepItem item{.sequence = &sequence, .tokens = tokens, .sampler = &sampler_};
      Must(model_.Step({&item, 1}).status());
    }
    return SecondsSince(start);
  }

  // Seconds of one step, after a few that load kernels and record the graph.
  double Decode(std::span<const std::unique_ptr<Sequence>> sequences, int num_steps) {
    constexpr int kWarmUp = 3;
    const TokenId token = 100;
    std::chrono::steady_clock::time_point start;
    for (int step = -kWarmUp; step < num_steps; ++step) {
      if (step == 0) start = std::chrono::steady_clock::now();
      std::vector<StepItem> items;
      for (const auto& sequence : sequences) {
        Must(model_.Reserve(*sequence, 1));
        items.push_back({.sequence = sequence.get(), .tokens = {&token, 1}, .sampler = &sampler_});
      }
      Must(model_.Step(items).status());
    }
    return SecondsSince(start) / num_steps;
  }

  // The linear layers of all tokens, and what queries and the slots that they see multiply.
  double PrefillFloor(int length) const {
    double slots = 0.;
    for (int64_t begin = 0; begin < length; begin += config_.window) {
      const double rows = static_cast<double>(std::min<int64_t>(config_.window, length - begin));
      slots += rows * ((rows + 1) / 2 + static_cast<double>(begin) / config_.chunk);
    }
    const double flops = 2. * layer_elements_ * length + 4. * config_.hidden_size * slots;
    return config_.num_layers * flops / multiply_rate_;
  }

  // Every weight once, and every slot of every sequence. A copy moves each byte twice.
  double DecodeFloor(int length, int num_sequences) const {
    const int in_window = length % config_.window;
    const double slots = in_window + double(length - in_window) / config_.chunk;
    const double bytes = 2. * layer_elements_ + num_sequences * slots * 4. * config_.hidden_size;
    return config_.num_layers * bytes / copy_rate_;
  }

  Model& model_;
  const EvaByteConfig& config_;
  const int64_t layer_elements_;
  const double multiply_rate_, copy_rate_;
  Sampler sampler_{{.temperature = 0.}};
};

void Run(const Flags& flags) {
  const EvaByteConfig config = ConfigOf(flags);
  std::unique_ptr<Gpu> gpu = Must(Gpu::Open(0));
  DeviceTimer timer(*gpu, flags.is_small ? 1 : 20);
  const double multiply_rate = timer.MultiplyRate(flags.is_small ? 64 : 8192);
  const double copy_rate = timer.CopyRate(flags.is_small ? 16 : 1 << 17);
  std::printf("{\"device\": \"%s\", \"layers\": %d, \"tflops\": %.1f, \"gb_per_s\": %.0f}\n",
              gpu->info().name.c_str(), config.num_layers, multiply_rate / 1e12, copy_rate / 1e9);
  const RandomWeights weights(config);
  const int64_t state_bytes = flags.is_small ? int64_t{64} << 20 : int64_t{flags.state_gib} << 30;
  EvaByteModel model(
      config, {},
      Must(EvaByteCuda::Create(config, weights.Tensors(), state_bytes, std::move(gpu))));
  Bench bench(model, config, weights.layer_elements(), multiply_rate, copy_rate);
  if (flags.is_small) return bench.Run(330, 2, 3);
  // In the middle of a window, where a state has its mean size.
  for (const int windows : {0, 3, 15, 63}) {
    const int length = windows * config.window + config.window / 2;
    for (const int sequences : {1, 8, 64}) bench.Run(length, sequences, 50);
  }
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) {
  evaserve::Flags flags;
  CLI::App app("The whole EvaByte 6.5B model on a device against the device's floors");
  app.add_option("--layers", flags.num_layers, "of 32, for a device with less memory")
      ->check(CLI::Range(1, 32));
  app.add_option("--state-gib", flags.state_gib, "memory of the states")
      ->check(CLI::PositiveNumber);
  app.add_flag("--small", flags.is_small, "a tiny model, to see that it runs");
  CLI11_PARSE(app, argc, argv);
  evaserve::Run(flags);
}

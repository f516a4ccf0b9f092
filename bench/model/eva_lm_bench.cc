// What a generated word costs a causal EVA language model, with its state and without, on one
// thread in process: a decoding step at places of a window, and the forward pass of the whole text
// that a model without a state needs for each word. A JSON line for each; the last ones are what we
// want to know. Time is the thread's processor time.
//
//   eva_lm_bench                            a random model of the published sizes, but 2 layers and
//                                           a tenth of the vocabulary
//   eva_lm_bench --layers 16 --dtype bfloat16
//   eva_lm_bench --model DIR
//
// Before anything is timed, decoding has to give the forward pass's results to the bit.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "bench/kernels/timing.h"
#include "kernels/serial_worker_pool.h"
#include "models/eva_lm/testing/random_lm.h"
#include "models/model.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

constexpr int kQuarters = 4;  // of a window, whose steps are timed together

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

nlohmann::json PublishedSizes(int num_layers) {
  nlohmann::json json = TinyLmJson();
  json.update({{"vocab_size", 26774},
               {"hidden_size", 1024},
               {"intermediate_size", 4096},
               {"num_attention_heads", 8},
               {"num_hidden_layers", num_layers},
               {"max_target_positions", 512},
               {"adaptive_cutoff", {2000, 6000}}});
  json["attn"].update({{"window_size", 128}, {"chunk_size", 8}});
  return json;
}

// Steps of one sequence of a model.
class Text {
 public:
  explicit Text(Model& model) : model_(model), sequence_(model.NewSequence()) {}

  StepResult Step(StepItem item) {
    item.sequence = sequence_.get();
    Check(model_.Reserve(*sequence_, static_cast<int>(item.tokens.size())));
    absl::StatusOr<std::vector<StepResult>> results = model_.Step({&item, 1});
    Check(results.status());
    return std::move(results->front());
  }

  // A step with a word drawn after the last token.
  double Seconds(std::span<const TokenId> tokens) {
    return SecondsOf([&] { Step({.tokens = tokens, .sampler = &sampler_}); });
  }

 private:
  Model& model_;
  std::unique_ptr<Sequence> sequence_;
  Sampler sampler_{{.temperature = 0, .seed = 1}};
};

void CheckAnswers(Model& model, std::span<const TokenId> tokens) {
  const std::vector<float> whole = Text(model).Step({.tokens = tokens, .all_hidden = true}).hidden;
  Text text(model);
  std::vector<float> decoded;
  for (const TokenId& token : tokens) {
    const StepResult result = text.Step({.tokens = {&token, 1}, .all_hidden = true});
    decoded.insert(decoded.end(), result.hidden.begin(), result.hidden.end());
  }
  if (decoded != whole) Check(absl::InternalError("decoding and the forward pass differ"));
}

// Of one decoding step, by the place of its token: the median over the steps of a quarter of a
// window and the repetitions.
std::map<int, double> DecodeSeconds(Model& model, std::span<const TokenId> tokens,
                                    int repetitions) {
  const int quarter = std::max(model.info().window / kQuarters, 1);
  std::map<int, std::vector<double>> seconds;
  for (int i = 0; i < repetitions; ++i) {
    Text text(model);
    for (size_t place = 0; place < tokens.size(); ++place) {
      const int group = static_cast<int>(place) / quarter * quarter;
      seconds[group].push_back(text.Seconds(tokens.subspan(place, 1)));
    }
  }
  std::map<int, double> medians;
  for (auto& [place, values] : seconds) medians[place] = Median(std::move(values));
  return medians;
}

double ForwardSeconds(Model& model, std::span<const TokenId> tokens, int repetitions) {
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) seconds.push_back(Text(model).Seconds(tokens));
  return Median(std::move(seconds));
}

// The slowest quarter of the last window against its fastest.
double WithinLastWindow(const std::map<int, double>& decode) {
  double least = decode.rbegin()->second, most = least;
  auto quarter = decode.rbegin();
  for (int i = 0; i < kQuarters && quarter != decode.rend(); ++i, ++quarter) {
    least = std::min(least, quarter->second);
    most = std::max(most, quarter->second);
  }
  return most / least;
}

int Main(int argc, char** argv) {
  std::string directory, dtype = "float32";
  int num_layers = 2, repetitions = 3;
  CLI::App app("What a generated word costs a language model, with its state and without");
  app.add_option("--model", directory, "model directory; absent: a random one");
  app.add_option("--layers", num_layers, "of the random one")->check(CLI::PositiveNumber);
  app.add_option("--dtype", dtype)->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--repetitions", repetitions)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  const TempDir temp;
  if (directory.empty()) {
    WriteRandomLm(temp.path(), PublishedSizes(num_layers));
    directory = temp.path();
  }
  SerialWorkerPool workers;
  const auto model = LoadModel(directory, {.dtype = DTypeFromName(dtype)}, workers);
  Check(model.status());
  const ModelInfo& info = (*model)->info();
  std::mt19937 random(1);
  std::vector<TokenId> tokens(info.max_seq_len);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % info.vocab_size);

  CheckAnswers(**model, tokens);
  const std::map<int, double> decode = DecodeSeconds(**model, tokens, repetitions);
  const double forward = ForwardSeconds(**model, tokens, repetitions);
  for (const auto& [place, seconds] : decode) {
    std::printf("{\"op\": \"decode\", \"dtype\": \"%s\", \"from\": %d, \"ms_per_word\": %.3f}\n",
                dtype.c_str(), place, seconds * 1e3);
  }
  std::printf("{\"op\": \"forward\", \"dtype\": \"%s\", \"length\": %zu, \"ms_per_word\": %.3f}\n",
              dtype.c_str(), tokens.size(), forward * 1e3);
  std::printf("{\"slowest_in_window_against_fastest\": %.2f, \"forward_against_decode\": %.1f}\n",
              WithinLastWindow(decode), forward / decode.rbegin()->second);
  return 0;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

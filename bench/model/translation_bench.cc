// Translations per second of a random model of the published size (transformer_wmt_en_de with EVA
// in its encoder) on one thread, in process: one by one, and together. All have 30 tokens, like
// their sources. Time is this process's CPU time, so that what else runs on the machine counts
// less.
//
//   translation_bench --model DIRECTORY [--sentences 32] [--beam-size 5] [--dtype bfloat16]
//
// Writes the model to DIRECTORY if there is none. Prints JSON: seconds of both, and the
// translations, so that whoever asks can check them (translation_peer.py). Ends with 1 if the two
// differ.

#include <CLI/CLI.hpp>
#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "kernels/serial_worker_pool.h"
#include "models/eva_translation/testing/random_translation.h"
#include "models/eva_translation/testing/requests.h"
#include "models/tensor_model.h"

namespace evaserve {
namespace {

constexpr int kTokens = 30;  // of a source, without </s>, and of a translation

struct Flags {
  std::string model, dtype;
  int sentences = 32, beam_size = 5;
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

nlohmann::json PublishedSize() {
  nlohmann::json json = TinySharedTranslationJson();
  for (const char* part : {"encoder", "decoder"}) {
    json[part].update({{"vocab_size", 32768},
                       {"hidden_size", 512},
                       {"intermediate_size", 2048},
                       {"num_attention_heads", 8},
                       {"num_hidden_layers", 6}});
  }
  json["encoder"]["attn"].update({{"window_size", 16}, {"num_landmarks", 8}});
  json["generation"] = {{"max_len_b", kTokens}, {"min_len", kTokens}};
  json["generation"].update({{"max_len_a", 0}, {"no_repeat_ngram_size", 0}});
  return json;
}

std::vector<std::string> RandomTexts(int count) {
  std::mt19937 generator(1);
  std::vector<std::string> texts(count);
  for (std::string& text : texts) {
    for (int i = 0; i < kTokens; ++i) text += " w" + std::to_string(4 + generator() % 32764);
  }
  return texts;
}

Translations Run(TensorModel& model, const std::vector<std::string>& texts, int beam_size) {
  TranslationRequest request(texts);
  request.BeamSize(beam_size);
  const TensorModel::Inputs* requests[] = {request.inputs()};
  return ReadTranslations(OrExit(model.Run(requests)).front());
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Translations per second, on one thread.", "translation_bench");
  app.add_option("--model", flags.model, "Directory; written if it is not there")->required();
  app.add_option("--sentences", flags.sentences)->check(CLI::Range(1, 1000));
  app.add_option("--beam-size", flags.beam_size)->check(CLI::Range(1, 64));
  app.add_option("--dtype", flags.dtype, "float32 or bfloat16; else float32");
  CLI11_PARSE(app, argc, argv);

  if (!std::filesystem::exists(flags.model)) {
    std::filesystem::create_directories(flags.model);
    RandomTranslation(PublishedSize()).WriteModel(flags.model);
  }
  SerialWorkerPool workers;
  LoadOptions options;
  if (!flags.dtype.empty()) options.dtype = DTypeFromName(flags.dtype);
  AnyModel any = OrExit(LoadAnyModel(flags.model, options, workers));
  TensorModel& model = *std::get<std::unique_ptr<TensorModel>>(any);

  const std::vector<std::string> texts = RandomTexts(flags.sentences);
  Run(model, {texts[0]}, flags.beam_size);  // warms up
  double begin = CpuSeconds();
  Translations one_by_one;
  for (const std::string& text : texts) {
    Translations one = Run(model, {text}, flags.beam_size);
    one_by_one.texts.push_back(std::move(one.texts[0]));
    one_by_one.scores.push_back(one.scores[0]);
  }
  const double alone = CpuSeconds() - begin;
  begin = CpuSeconds();
  const Translations together = Run(model, texts, flags.beam_size);
  const double batched = CpuSeconds() - begin;
  nlohmann::json result = {{"sentences", flags.sentences}, {"beam_size", flags.beam_size}};
  result.update({{"seconds_one_by_one", alone}, {"seconds_together", batched}});
  result.update({{"sources", texts}, {"translations", together.texts}});
  std::puts(result.dump().c_str());
  return together == one_by_one ? 0 : 1;
}

}  // namespace
}  // namespace evaserve

int main(int argc, char** argv) { return evaserve::Main(argc, argv); }

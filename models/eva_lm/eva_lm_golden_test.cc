// The whole model against the official code's outputs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/eva_lm/testing/random_lm.h"
#include "models/testing/golden.h"
#include "models/testing/model_runner.h"

namespace evaserve {
namespace {

// A golden directory with the dictionary that it lacks.
class WithDictionary {
 public:
  explicit WithDictionary(const GoldenModel& golden) {
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::create_symlink(golden.directory / name, dir_.path() / name);
    }
    const nlohmann::json config = GoldenJson(golden.directory / "config.json");
    WriteFile(dir_.path() / "dict.txt", LmDictionary(config.at("vocab_size")));
  }

  const std::filesystem::path& path() const { return dir_.path(); }

 private:
  TempDir dir_;
};

// One row of a case.
struct GoldenRow {
  std::span<const TokenId> tokens;
  std::span<const float> features;  // [tokens, hidden_size]
  std::vector<int> log_prob_positions;
  std::span<const float> log_probs;  // [positions, vocab_size]
  double feature_tolerance = 0;
  double log_prob_tolerance = 0;
};

// Rows without their padding.
std::vector<GoldenRow> RowsOf(const GoldenModel& golden, const ModelInfo& info) {
  std::vector<GoldenRow> rows;
  for (const nlohmann::json& one : golden.cases) {
    const std::string name = one.at("case").get<std::string>();
    const std::vector<size_t> lengths = one.at("lens");
    const std::vector<int> positions = one.at("log_prob_positions");
    const auto tokens = GoldenInts(golden.tensors, name + ".tokens");
    const auto features = GoldenFloats(golden.tensors, name + ".features");
    const auto log_probs = GoldenFloats(golden.tensors, name + ".log_probs");
    const size_t longest = tokens.size() / lengths.size(), size = info.hidden_size;
    const size_t num_log_probs = positions.size() * info.vocab_size;
    for (size_t i = 0; i < lengths.size(); ++i) {
      rows.push_back({.tokens = tokens.subspan(i * longest, lengths[i]),
                      .features = features.subspan(i * longest * size, lengths[i] * size),
                      .log_prob_positions = positions,
                      .log_probs = log_probs.subspan(i * num_log_probs, num_log_probs),
                      .feature_tolerance = one.at("tol_fp32").at("features"),
                      .log_prob_tolerance = one.at("tol_fp32").at("log_probs")});
    }
  }
  return rows;
}

std::span<const float> At(std::span<const float> rows, size_t index, size_t size) {
  return rows.subspan(index * size, size);
}

TEST(EvaLmGoldenTest, TheModelIsTheOfficialOneHoweverItIsCut) {
  int num_rows = 0;
  for (const GoldenModel& golden : GoldenModels("eva_causal_lm")) {
    const WithDictionary directory(golden);
    const LoadedModel loaded(directory.path());
    const size_t vocab_size = loaded.model->info().vocab_size;
    for (const GoldenRow& row : RowsOf(golden, loaded.model->info())) {
      for (const CutRule& cut :
           {WholeWindows(), OneByOne(), CutRule([](int64_t done) { return int(1 + done % 7); })}) {
        SCOPED_TRACE(golden.directory.string() + ", " + std::to_string(row.tokens.size()));
        const Outputs outputs = RunTokens(*loaded.model, row.tokens, cut);
        EXPECT_LE(MaxError(outputs.hidden, row.features), row.feature_tolerance);
        for (size_t i = 0; i < row.log_prob_positions.size(); ++i) {
          EXPECT_LE(MaxError(At(outputs.logits, row.log_prob_positions[i], vocab_size),
                             At(row.log_probs, i, vocab_size)),
                    row.log_prob_tolerance);
        }
      }
      ++num_rows;
    }
  }
  EXPECT_GE(num_rows, 10);
}

// Sequences of different lengths in one step, each with the log-probabilities of its targets.
TEST(EvaLmGoldenTest, ARaggedBatchScoresAsTheOfficialModel) {
  for (const GoldenModel& golden : GoldenModels("eva_causal_lm")) {
    SCOPED_TRACE(golden.directory.string());
    const WithDictionary directory(golden);
    const LoadedModel loaded(directory.path());
    Model& model = *loaded.model;
    const size_t vocab_size = model.info().vocab_size;
    const std::vector<GoldenRow> rows = RowsOf(golden, model.info());
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<StepItem> items;
    for (const GoldenRow& row : rows) {
      sequences.push_back(model.NewSequence());
      ASSERT_TRUE(model.Reserve(*sequences.back(), std::ssize(row.tokens)).ok());
      // Any words do: here the tokens themselves.
      items.push_back({.sequence = sequences.back().get(),
                       .tokens = row.tokens,
                       .targets = row.tokens,
                       .all_hidden = true});
    }
    const auto results = model.Step(items);
    ASSERT_TRUE(results.ok()) << results.status();
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_LE(MaxError((*results)[i].hidden, rows[i].features), rows[i].feature_tolerance);
      for (size_t j = 0; j < rows[i].log_prob_positions.size(); ++j) {
        const int position = rows[i].log_prob_positions[j];
        EXPECT_NEAR((*results)[i].target_logprobs[position],
                    At(rows[i].log_probs, j, vocab_size)[rows[i].tokens[position]],
                    rows[i].log_prob_tolerance);
      }
    }
  }
}

TEST(EvaLmGoldenTest, BFloat16IsNear) {
  for (const GoldenModel& golden : GoldenModels("eva_causal_lm")) {
    const WithDictionary directory(golden);
    const LoadedModel loaded(directory.path(), {.dtype = DType::kBFloat16});
    const GoldenRow row = RowsOf(golden, loaded.model->info()).back();
    const Outputs outputs = RunTokens(*loaded.model, row.tokens, WholeWindows());
    const double error = MaxError(outputs.hidden, row.features);
    EXPECT_LE(error, 0.3);
    EXPECT_GE(error, 1e-4);  // not float32 by another name
  }
}

}  // namespace
}  // namespace evaserve

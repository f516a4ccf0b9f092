// The official code's outputs (golden/README.md), in every directory of an EvaByte model. Cases are
// found when the test runs, not when it is built, so that one build serves any folder. What a layer
// holds inside (the cases' layerI tensors) cannot be seen through Model; kernels/ tests it.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/evabyte/tokenizer.h"
#include "models/testing/golden.h"
#include "models/testing/model_runner.h"

namespace evaserve {
namespace {

// The limits that the data's README suggests for whole models, or ten times the error of the
// official code in float32 where that is more.
constexpr double kHiddenTolerance = 4e-5;
constexpr double kLogitsTolerance = 1.5e-4;
constexpr double kReferenceErrors = 10;

// bfloat16 inputs and float32 sums: closer than the official bfloat16 run on average, and at most
// this much further at the worst element.
constexpr double kBf16MaxErrors = 1.5;

struct Difference {
  double max = 0, mean = 0;
  size_t where = 0;
};

Difference Compare(std::span<const float> actual, std::span<const float> expected) {
  Difference result;
  EXPECT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    const double difference = std::abs(double{actual[i]} - expected[i]);
    result.mean += difference / expected.size();
    // The negation catches NaN.
    if (!(difference <= result.max)) {
      result.max = difference;
      result.where = i;
    }
  }
  return result;
}

void ExpectNear(std::span<const float> actual, std::span<const float> expected, double limit,
                const char* what) {
  const Difference difference = Compare(actual, expected);
  EXPECT_LE(difference.max, limit) << what << ", element " << difference.where;
}

double Limit(const nlohmann::json& golden_case, const char* what, double least) {
  if (!golden_case.contains("ref_fp32_err")) return least;
  return std::max(least, kReferenceErrors * golden_case["ref_fp32_err"].value(what, 0.0));
}

// Calls `check` for every case of this kind, and fails if there is none.
using Check =
    std::function<void(Model&, const GoldenModel&, const nlohmann::json&, const std::string& name)>;
void ForEachCase(const std::string& kind, DType dtype, const Check& check) {
  int num_cases = 0;
  for (const GoldenModel& golden : GoldenModels("evabyte")) {
    LoadedModel loaded(golden.directory, {.dtype = dtype, .state_bytes = 64 << 20});
    for (const nlohmann::json& golden_case : golden.cases) {
      if (golden_case.at("kind") != kind) continue;
      const auto name = golden_case.at("case").get<std::string>();
      SCOPED_TRACE(golden.directory.filename().string() + " " + name);
      check(*loaded.model, golden, golden_case, name + ".");
      EXPECT_EQ(loaded.model->state_pool().free_pages, loaded.model->state_pool().total_pages);
      ++num_cases;
    }
  }
  EXPECT_GT(num_cases, 0) << "no case of kind " << kind;
}

// The rows of all logits that a case has an expectation for.
std::vector<float> PickRows(const std::vector<float>& values, size_t row_size,
                            const std::vector<size_t>& rows) {
  std::vector<float> picked;
  for (size_t row : rows) {
    const auto begin = values.begin() + row * row_size;
    picked.insert(picked.end(), begin, begin + row_size);
  }
  return picked;
}

size_t LogitsPerToken(const Model& model) {
  return size_t(model.info().num_pred_heads) * model.info().vocab_size;
}

// Positions where the two best logits are closer than `limit` say nothing.
void ExpectArgmax(const Model& model, const std::vector<float>& logits,
                  std::span<const int32_t> expected, double limit) {
  const size_t vocab = model.info().vocab_size;
  ASSERT_EQ(expected.size() * vocab, logits.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const float* begin = &logits[i * vocab];
    const float* best = std::max_element(begin, begin + vocab);
    if (best - begin == expected[i]) continue;
    EXPECT_LE(*best - begin[expected[i]], limit) << "argmax of row " << i;
  }
}

void CheckPrefill(Model& model, const GoldenModel& golden, const nlohmann::json& golden_case,
                  const std::string& name) {
  const Outputs outputs =
      RunTokens(model, GoldenInts(golden.tensors, name + "input_ids"), WholeWindows());
  ExpectNear(outputs.hidden, GoldenFloats(golden.tensors, name + "hidden"),
             Limit(golden_case, "hidden", kHiddenTolerance), "hidden");
  const double limit = Limit(golden_case, "logits", kLogitsTolerance);
  const auto positions = golden_case.at("logit_positions").get<std::vector<size_t>>();
  ExpectNear(PickRows(outputs.logits, LogitsPerToken(model), positions),
             GoldenFloats(golden.tensors, name + "logits"), limit, "logits");
  ExpectArgmax(model, outputs.logits, GoldenInts(golden.tensors, name + "argmax"), limit);
}

TEST(EvaByteGoldenTest, PrefillGivesTheOfficialHiddenStatesAndLogits) {
  ForEachCase("prefill", DType::kFloat32, CheckPrefill);
}

TEST(EvaByteGoldenTest, Bfloat16IsCloserThanTheOfficialBfloat16) {
  const auto check = [](Model& model, const GoldenModel& golden, const nlohmann::json& golden_case,
                        const std::string& name) {
    if (!golden_case.contains("ref_bf16_err_native")) return;
    const Outputs outputs =
        RunTokens(model, GoldenInts(golden.tensors, name + "input_ids"), WholeWindows());
    const auto positions = golden_case.at("logit_positions").get<std::vector<size_t>>();
    const Difference difference =
        Compare(PickRows(outputs.logits, LogitsPerToken(model), positions),
                GoldenFloats(golden.tensors, name + "logits"));
    const nlohmann::json& official = golden_case["ref_bf16_err_native"];
    EXPECT_LE(difference.mean, official.at("mean").get<double>());
    EXPECT_LE(difference.max, kBf16MaxErrors * official.at("max").get<double>());
  };
  ForEachCase("prefill", DType::kBFloat16, check);
}

TEST(EvaByteGoldenTest, DecodingInAnyPiecesGivesTheOfficialHiddenStates) {
  const auto check = [](Model& model, const GoldenModel& golden, const nlohmann::json& golden_case,
                        const std::string& name) {
    const auto prompt_len = golden_case.at("prompt_len").get<int64_t>();
    const std::pair<const char*, CutRule> cuts[] = {
        {"prompt, then one by one",
         [&](int64_t done) { return done == 0 ? static_cast<int>(prompt_len) : 1; }},
        {"one by one", OneByOne()},
        {"in whole windows", WholeWindows()},
        {"in pieces of 1 to 7", [](int64_t done) { return static_cast<int>(1 + done % 7); }}};
    for (const auto& [cut_name, cut] : cuts) {
      SCOPED_TRACE(cut_name);
      const Outputs outputs = RunTokens(model, GoldenInts(golden.tensors, name + "input_ids"), cut);
      ExpectNear(outputs.hidden, GoldenFloats(golden.tensors, name + "hidden"),
                 Limit(golden_case, "hidden", kHiddenTolerance), "hidden");
      const size_t per_token = LogitsPerToken(model);
      ExpectNear(std::span(outputs.logits).last(per_token),
                 GoldenFloats(golden.tensors, name + "logits_last"),
                 Limit(golden_case, "logits", kLogitsTolerance), "logits_last");
      if (golden.tensors.Find(name + "argmax") == nullptr) continue;
      ExpectArgmax(model, outputs.logits, GoldenInts(golden.tensors, name + "argmax"),
                   kLogitsTolerance);
    }
  };
  ForEachCase("decode", DType::kFloat32, check);
}

// All rows of a ragged batch in the same steps, until each has ended.
std::vector<Outputs> RunTogether(Model& model, const std::vector<std::span<const TokenId>>& rows) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (size_t i = 0; i < rows.size(); ++i) sequences.push_back(model.NewSequence());
  std::vector<Outputs> outputs(rows.size());
  while (true) {
    std::vector<StepItem> items;
    std::vector<size_t> owners;
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto rest = rows[i].subspan(sequences[i]->length());
      const size_t room = model.TokensToBoundary(*sequences[i]);
      if (rest.empty()) continue;
      items.push_back({.sequence = sequences[i].get(),
                       .tokens = rest.first(std::min(rest.size(), room)),
                       .all_hidden = true,
                       .all_logits = true});
      owners.push_back(i);
      EXPECT_TRUE(model.Reserve(*sequences[i], std::ssize(items.back().tokens)).ok());
    }
    if (items.empty()) return outputs;
    const auto results = model.Step(items);
    if (!results.ok()) {
      ADD_FAILURE() << results.status();
      return outputs;
    }
    for (size_t i = 0; i < items.size(); ++i) {
      const StepResult& result = (*results)[i];
      Outputs& output = outputs[owners[i]];
      output.hidden.insert(output.hidden.end(), result.hidden.begin(), result.hidden.end());
      output.logits.assign(result.logits.end() - LogitsPerToken(model), result.logits.end());
    }
  }
}

TEST(EvaByteGoldenTest, ARaggedBatchGivesEveryRowWhatItHasAlone) {
  const auto check = [](Model& model, const GoldenModel& golden, const nlohmann::json& golden_case,
                        const std::string& name) {
    const auto ids = GoldenInts(golden.tensors, name + "input_ids");
    const auto lengths = GoldenInts(golden.tensors, name + "lengths");
    const size_t padded = ids.size() / lengths.size();
    std::vector<std::span<const TokenId>> rows;
    for (size_t i = 0; i < lengths.size(); ++i) {
      rows.push_back(ids.subspan(i * padded, lengths[i]));
    }
    const std::vector<Outputs> outputs = RunTogether(model, rows);
    const auto hidden = GoldenFloats(golden.tensors, name + "hidden");
    const auto logits = GoldenFloats(golden.tensors, name + "logits_last");
    const size_t hidden_size = model.info().hidden_size, per_token = LogitsPerToken(model);
    for (size_t i = 0; i < rows.size(); ++i) {
      SCOPED_TRACE("row " + std::to_string(i));
      ExpectNear(outputs[i].hidden,
                 hidden.subspan(i * padded * hidden_size, rows[i].size() * hidden_size),
                 Limit(golden_case, "hidden", kHiddenTolerance), "hidden");
      ExpectNear(outputs[i].logits, logits.subspan(i * per_token, per_token),
                 Limit(golden_case, "logits", kLogitsTolerance), "logits_last");
    }
  };
  ForEachCase("ragged_batch", DType::kFloat32, check);
}

TEST(EvaByteGoldenTest, GreedyGenerationGivesTheOfficialTokens) {
  const auto check = [](Model& model, const GoldenModel& golden, const nlohmann::json& golden_case,
                        const std::string& name) {
    const auto prompt = GoldenInts(golden.tensors, name + "prompt");
    const auto expected = GoldenInts(golden.tensors, name + "output_ids");
    const std::vector<TokenId> generated = Generate(
        model, prompt, golden_case.at("max_new_tokens").get<int64_t>(), {.temperature = 0});
    std::vector<TokenId> actual(prompt.begin(), prompt.end());
    actual.insert(actual.end(), generated.begin(), generated.end());
    EXPECT_EQ(actual, std::vector<TokenId>(expected.begin(), expected.end()));
  };
  ForEachCase("greedy", DType::kFloat32, check);
}

}  // namespace
}  // namespace evaserve

// The official sampling filters that are ours too. Its "typical" filter belongs to multi-byte
// decoding and has no counterpart among SamplingParams.

#include <string>

#include "gtest/gtest.h"
#include "models/testing/golden.h"
#include "models/token_filters.h"

namespace evaserve {
namespace {

TEST(TokenFiltersGoldenTest, TopPIsTheOfficialNucleus) {
  const nlohmann::json cases = GoldenJson(GoldenDir() / "evabyte_decoding.json").at("cases");
  const auto tensors = Safetensors::Open(GoldenDir() / "evabyte_decoding.safetensors");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  int num_cases = 0;
  for (const nlohmann::json& golden_case : cases) {
    if (golden_case.value("mode", "") != "nucleus") continue;
    const auto name = golden_case.at("case").get<std::string>();
    SCOPED_TRACE(name);
    const auto logits = GoldenFloats(*tensors, name + ".logits");
    const auto expected = GoldenFloats(*tensors, name + ".probs");
    const size_t vocab = tensors->Find(name + ".logits")->shape.back();
    const SamplingParams params = {.temperature = golden_case.at("temperature").get<double>(),
                                   .top_p = golden_case.at("top_p").get<double>()};
    for (size_t row = 0; row < logits.size() / vocab; ++row) {
      const auto begin = logits.begin() + row * vocab;
      std::vector<float> probabilities(begin, begin + vocab);
      std::vector<TokenId> ranking;
      FilterToProbabilities(params, probabilities, ranking);
      for (size_t i = 0; i < vocab; ++i) {
        ASSERT_NEAR(probabilities[i], expected[row * vocab + i],
                    golden_case.at("tol_fp32").get<double>())
            << "row " << row << " token " << i;
      }
    }
    ++num_cases;
  }
  EXPECT_GT(num_cases, 0);
}

}  // namespace
}  // namespace evaserve

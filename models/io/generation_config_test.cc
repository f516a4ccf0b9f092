#include "models/io/generation_config.h"

#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

TEST(GenerationConfigTest, AMissingFileLeavesDefaults) {
  const TempDir dir;
  const auto config = ReadGenerationConfig(dir.path(), 320);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->eos_tokens);
  EXPECT_EQ(config->sampling.temperature, 1.0);
}

TEST(GenerationConfigTest, TakesOneEosTokenOrAList) {
  const TempDir dir;
  WriteFile(dir.path() / "generation_config.json", R"({"eos_token_id": 11})");
  EXPECT_EQ(ReadGenerationConfig(dir.path(), 320)->eos_tokens, std::vector<TokenId>{11});
  WriteFile(dir.path() / "generation_config.json", R"({"eos_token_id": [2, 11]})");
  EXPECT_EQ(ReadGenerationConfig(dir.path(), 320)->eos_tokens, (std::vector<TokenId>{2, 11}));
}

TEST(GenerationConfigTest, RefusesATokenOutsideTheVocabulary) {
  const TempDir dir;
  WriteFile(dir.path() / "generation_config.json", R"({"eos_token_id": 11})");
  EXPECT_THAT(ReadGenerationConfig(dir.path(), 11).status(),
              IsError(absl::StatusCode::kInvalidArgument, "generation_config.json",
                      "\"eos_token_id\" is 11", "from 0 to 10"));
}

}  // namespace
}  // namespace evaserve

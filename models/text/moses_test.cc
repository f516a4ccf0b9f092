#include "models/text/moses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"
#include "models/text/testing/vectors.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using Tokens = std::vector<std::string>;

Language LanguageOf(const nlohmann::json& one) {
  return one.at("language").get<std::string>() == "en" ? Language::kEnglish : Language::kGerman;
}

TEST(MosesTokenizerTest, SplitsAsTheReferenceDoes) {
  const nlohmann::json vectors = ReadVectors("moses_vectors.json");
  ASSERT_GT(vectors.at("tokenize").size(), 100);
  for (const nlohmann::json& one : vectors.at("tokenize")) {
    MosesTokenizer::Options options = {.language = LanguageOf(one),
                                       .splits_hyphens = one.at("splits_hyphens")};
    ASSERT_TRUE(ReadNonbreakingPrefixes(VectorFile("nonbreaking_prefix.test"), options).ok());
    const auto text = one.at("text").get<std::string>();
    EXPECT_EQ(MosesTokenizer(options).Tokenize(text), one.at("tokens").get<Tokens>())
        << one.at("language") << ": " << text;
  }
}

TEST(MosesTokenizerTest, WithoutPrefixesAStopEndsASentence) {
  const MosesTokenizer tokenizer({});
  EXPECT_THAT(tokenizer.Tokenize("Dr. Who"), ElementsAre("Dr", ".", "Who"));
  EXPECT_THAT(tokenizer.Tokenize("etc. and"), ElementsAre("etc.", "and"));
}

TEST(MosesTokenizerTest, NothingIsNoToken) {
  EXPECT_TRUE(MosesTokenizer({}).Tokenize("").empty());
  EXPECT_TRUE(MosesTokenizer({}).Tokenize(" \t\n ").empty());
}

TEST(MosesPrefixesTest, AreWordsAndCommentsAreNot) {
  const TempDir dir;
  WriteFile(dir.path() / "prefixes", "# Names\n\n Dr \r\nNo #NUMERIC_ONLY#\nMr");
  MosesTokenizer::Options options;
  ASSERT_TRUE(ReadNonbreakingPrefixes(dir.path() / "prefixes", options).ok());
  EXPECT_THAT(options.prefixes, ElementsAre("Dr", "Mr"));
  EXPECT_THAT(options.numeric_prefixes, ElementsAre("No"));
  EXPECT_THAT(ReadNonbreakingPrefixes(dir.path() / "none", options),
              IsError(absl::StatusCode::kNotFound, "none"));
}

TEST(MosesDetokenizeTest, JoinsAsTheReferenceDoes) {
  const nlohmann::json vectors = ReadVectors("moses_vectors.json");
  ASSERT_GT(vectors.at("detokenize").size(), 20);
  for (const nlohmann::json& one : vectors.at("detokenize")) {
    const auto tokens = one.at("tokens").get<Tokens>();
    EXPECT_EQ(MosesDetokenize(tokens, LanguageOf(one)), one.at("text").get<std::string>())
        << one.at("language") << ": " << one.at("tokens");
  }
}

}  // namespace
}  // namespace evaserve

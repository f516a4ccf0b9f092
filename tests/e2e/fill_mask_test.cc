// A small random masked language model through the server, by ModelInfer and by `eva fill-mask`.
#include "client/fill_mask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_join.h"
#include "models/eva_encoder/testing/random_encoder.h"
#include "models/testing/status_matchers.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Texts = std::vector<std::string>;

const Texts kTexts = {"w4 <mask> w17", "<mask>, w30 w31 w32 <mask>", "w1 w2 w3 w9",
                      "w8 nobody <mask>", "w4 <mask> w17"};

class FillMaskTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new TempDir;
    RandomEncoder(TinyMaskedLmJson()).Write(directory_->path(), TinyMaskedLmJson());
    WriteFile(directory_->path() / "dict.txt", TinyDictionary());
    WriteFile(directory_->path() / "serving.json", R"({"max_batch_size": 5})");
    Config config;
    config.models = {{.name = "tiny", .directory = directory_->path()}};
    server_ = new TestServer(config);
  }

  static void TearDownTestSuite() {
    delete server_;
    delete directory_;
  }

  static std::vector<std::vector<MaskGuesses>> Fill(std::span<const std::string> texts,
                                                    const FillMaskOptions& options = {}) {
    auto guesses = FillMasks(server_->client(), texts, options);
    EXPECT_TRUE(guesses.ok()) << guesses.status();
    return guesses.ok() ? *std::move(guesses) : std::vector<std::vector<MaskGuesses>>(texts.size());
  }

  static absl::Status ErrorOf(const std::string& text, const FillMaskOptions& options = {}) {
    return FillMasks(server_->client(), {&text, 1}, options).status();
  }

  // Lines of `eva fill-mask`.
  static Texts EvaFillMask(Texts args, const std::string& input = "") {
    args.insert(args.begin(), {"fill-mask", "--server", server_->target()});
    Program eva(EVA_PROGRAM, args, input);
    EXPECT_EQ(eva.Wait(), 0) << eva.Error();
    Texts lines;
    std::istringstream output(eva.Output());
    for (std::string line; std::getline(output, line);) lines.push_back(line);
    return lines;
  }

  static inline TempDir* directory_ = nullptr;
  static inline TestServer* server_ = nullptr;
};

void ExpectSame(const std::vector<MaskGuesses>& a, const std::vector<MaskGuesses>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].size(), b[i].size());
    for (size_t k = 0; k < a[i].size(); ++k) {
      EXPECT_EQ(a[i][k].token, b[i][k].token);
      EXPECT_EQ(a[i][k].word, b[i][k].word);
      EXPECT_EQ(a[i][k].logprob, b[i][k].logprob);
    }
  }
}

TEST_F(FillMaskTest, ABatchIsItsTextsOneByOne) {
  const auto batch = Fill(kTexts);
  EXPECT_THAT(batch, ElementsAre(SizeIs(1), SizeIs(2), IsEmpty(), SizeIs(1), SizeIs(1)));
  for (size_t i = 0; i < kTexts.size(); ++i) {
    SCOPED_TRACE(kTexts[i]);
    ExpectSame(batch[i], Fill({&kTexts[i], 1})[0]);
    for (const MaskGuesses& guesses : batch[i]) EXPECT_THAT(guesses, SizeIs(5));
  }
  ExpectSame(batch[0], batch[4]);
}

TEST_F(FillMaskTest, GuessesAreWordsMostLikelyFirst) {
  const MaskGuesses all = Fill({kTexts.data(), 1}, {.model = "tiny", .top_k = 40})[0][0];
  ASSERT_THAT(all, SizeIs(40));
  double sum = 0;
  for (size_t k = 0; k < all.size(); ++k) {
    sum += std::exp(all[k].logprob);
    EXPECT_LE(all[k].logprob, all[k == 0 ? k : k - 1].logprob);
    if (all[k].token < 4) continue;
    EXPECT_EQ(all[k].word, all[k].token == 39 ? "<mask>" : "w" + std::to_string(all[k].token - 4));
  }
  EXPECT_NEAR(sum, 1, 1e-4);
}

TEST_F(FillMaskTest, ErrorsNameTheFieldWhatCameAndWhatIsAllowed) {
  std::string words;
  for (int i = 0; i < 63; ++i) words += "w1 ";
  EXPECT_THAT(ErrorOf(words),
              IsError(kInvalid, "text_input: row 0 has 65 tokens", "allowed are 1 to 64"));
  EXPECT_THAT(ErrorOf("<mask>", {.top_k = 41}),
              IsError(kInvalid, "top_k: row 0 is 41, allowed are 1 to 40"));
  EXPECT_THAT(ErrorOf("<mask>", {.model = "other"}),
              IsError(absl::StatusCode::kNotFound, "other", "tiny"));
}

TEST_F(FillMaskTest, EvaFillsTextsIn) {
  const auto want = Fill(kTexts);
  const Texts lines = EvaFillMask({kTexts[1], "--top-k", "2"});
  ASSERT_THAT(lines, SizeIs(4));
  EXPECT_THAT(lines[0], HasSubstr(want[1][0][0].word + ", w30 w31 w32 <mask>"));
  EXPECT_THAT(lines[1], HasSubstr(want[1][0][1].word + ", w30 w31 w32 <mask>"));
  EXPECT_THAT(lines[2], HasSubstr("<mask>, w30 w31 w32 " + want[1][1][0].word));
  EXPECT_THAT(lines[2], HasSubstr("%  <mask>"));
}

TEST_F(FillMaskTest, EvaFillsLinesInAsJson) {
  const auto want = Fill(kTexts);
  const Texts lines = EvaFillMask({"-", "--json"}, kTexts[0] + "\n\n" + kTexts[1] + "\n");
  ASSERT_THAT(lines, SizeIs(2));
  for (size_t i = 0; i < lines.size(); ++i) {
    const json object = json::parse(lines[i]);
    EXPECT_EQ(object.at("text").get<std::string>(), kTexts[i]);
    ASSERT_THAT(object.at("masks"), SizeIs(want[i].size()));
    const json& best = object.at("masks")[0][0];
    EXPECT_EQ(best.at("word").get<std::string>(), want[i][0][0].word);
    EXPECT_EQ(best.at("token").get<int64_t>(), want[i][0][0].token);
    EXPECT_EQ(best.at("logprob").get<float>(), want[i][0][0].logprob);
    EXPECT_EQ(best.at("text").get<std::string>(), WithWord(kTexts[i], 0, want[i][0][0].word));
  }
}

TEST_F(FillMaskTest, EvaSendsAsManyLinesAsTheModelTakes) {
  const Texts texts(12, kTexts[0]);
  EXPECT_THAT(EvaFillMask({"-", "--json"}, absl::StrJoin(texts, "\n")), SizeIs(texts.size()));
}

TEST_F(FillMaskTest, EvaRefusesTextsWithoutAMask) {
  Program eva(EVA_PROGRAM, {"fill-mask", "--server", server_->target(), "w4 <mask>", "w5"}, "");
  EXPECT_EQ(eva.Wait(), 2);
  EXPECT_THAT(eva.Error(), HasSubstr("\"w5\" has no <mask>"));
}

TEST(WithWordTest, PutsAWordWhereItsMaskIs) {
  EXPECT_EQ(WithWord("The <mask> sat.", 0, "cat"), "The cat sat.");
  EXPECT_EQ(WithWord("<mask> and <mask>", 1, "dog"), "<mask> and dog");
  EXPECT_EQ(WithWord("a <mask> ing", 0, "walk@@"), "a walking");
  EXPECT_EQ(WithWord("a <mask>", 0, "walk@@"), "a walk");
  EXPECT_EQ(WithWord("<mask>", 1, "cat"), "<mask>");
}

}  // namespace
}  // namespace evaserve

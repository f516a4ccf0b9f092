// A small random translation model through the server, by ModelInfer and by `eva translate`.
#include "client/translation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_join.h"
#include "models/eva_translation/testing/random_translation.h"
#include "models/testing/status_matchers.h"
#include "tests/e2e/program.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using nlohmann::json;
using testing::Each;
using testing::Field;
using testing::HasSubstr;
using testing::Lt;

const std::vector<std::string> kTexts = {"e4 e20 e17", "e9", "e30 e31 e32 e33 e12 e5 e6",
                                         "e8 nobody e9", "e4 e20 e17"};

class TranslationTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new TempDir;
    RandomTranslation(TinyTranslationJson()).WriteModel(directory_->path());
    WriteFile(directory_->path() / "serving.json", R"({"max_batch_size": 5})");
    Config config;
    config.models = {{.name = "tiny", .directory = directory_->path()}};
    server_ = new TestServer(config);
  }

  static void TearDownTestSuite() {
    delete server_;
    delete directory_;
  }

  static std::vector<Translation> TranslateAll(std::span<const std::string> texts,
                                               const TranslateOptions& options = {}) {
    auto translations = Translate(server_->client(), texts, options);
    EXPECT_TRUE(translations.ok()) << translations.status();
    return translations.ok() ? *std::move(translations) : std::vector<Translation>(texts.size());
  }

  static absl::Status ErrorOf(const std::string& text, const TranslateOptions& options = {}) {
    return Translate(server_->client(), {&text, 1}, options).status();
  }

  // Lines of `eva translate`.
  static std::vector<std::string> EvaTranslate(std::vector<std::string> args,
                                               const std::string& input = "") {
    args.insert(args.begin(), {"translate", "--server", server_->target()});
    Program eva(EVA_PROGRAM, args, input);
    EXPECT_EQ(eva.Wait(), 0) << eva.Error();
    std::vector<std::string> lines;
    std::istringstream output(eva.Output());
    for (std::string line; std::getline(output, line);) lines.push_back(line);
    return lines;
  }

  static inline TempDir* directory_ = nullptr;
  static inline TestServer* server_ = nullptr;
};

TEST_F(TranslationTest, ABatchIsItsTextsOneByOneAndTheSameAgain) {
  const std::vector<Translation> batch = TranslateAll(kTexts), again = TranslateAll(kTexts);
  EXPECT_THAT(batch, Each(Field(&Translation::score, Lt(0))));
  EXPECT_THAT(batch[0].text, HasSubstr("d"));
  for (size_t i = 0; i < kTexts.size(); ++i) {
    const Translation alone = TranslateAll({&kTexts[i], 1})[0];
    EXPECT_EQ(batch[i].text, alone.text);
    EXPECT_EQ(batch[i].score, alone.score);
    EXPECT_EQ(batch[i].text, again[i].text);
    EXPECT_EQ(batch[i].score, again[i].score);
  }
  EXPECT_EQ(batch[0].text, batch[4].text);
  EXPECT_NE(batch[0].text, batch[2].text);
}

TEST_F(TranslationTest, TakesTheOptionsOfARequest) {
  const std::vector<Translation> usual = TranslateAll(kTexts, {.model = "tiny"});
  const std::vector<Translation> cut = TranslateAll(kTexts, {.max_tokens = 1});
  for (const Translation& translation : cut)
    EXPECT_EQ(translation.text.find(' '), std::string::npos);
  const std::vector<Translation> sums =
      TranslateAll(kTexts, {.beam_size = 1, .length_penalty = 0.f});
  EXPECT_LT(sums[2].score, usual[2].score);
}

TEST_F(TranslationTest, ErrorsNameTheFieldWhatCameAndWhatIsAllowed) {
  EXPECT_THAT(ErrorOf(""), IsError(kInvalid, "text_input: row 0 has no words"));
  EXPECT_THAT(ErrorOf("e4", {.beam_size = 65}),
              IsError(kInvalid, "beam_size: row 0 is 65, allowed are 1 to 64"));
  EXPECT_THAT(ErrorOf("e4", {.max_tokens = 32}), IsError(kInvalid, "max_tokens: row 0 is 32"));
  EXPECT_THAT(ErrorOf("e4", {.model = "other"}),
              IsError(absl::StatusCode::kNotFound, "other", "tiny"));
}

TEST_F(TranslationTest, EvaTranslatesWhatItIsGiven) {
  const std::vector<Translation> want = TranslateAll(kTexts);
  EXPECT_THAT(EvaTranslate({kTexts[0], kTexts[2]}),
              testing::ElementsAre(want[0].text, want[2].text));
  std::string input;
  for (const std::string& text : kTexts) input += text + "\n";
  const std::vector<std::string> lines = EvaTranslate({"-", "--json"}, input);
  ASSERT_EQ(lines.size(), kTexts.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const json object = json::parse(lines[i]);
    EXPECT_EQ(object.at("text"), kTexts[i]);
    EXPECT_EQ(object.at("translation"), want[i].text);
    EXPECT_EQ(object.at("score").get<float>(), want[i].score);
  }
  EXPECT_THAT(EvaTranslate({"--max-tokens", "1", "--beam-size", "2", kTexts[2]}),
              testing::ElementsAre(testing::Not(HasSubstr(" "))));
}

TEST_F(TranslationTest, LinesStayBesideTheirTranslations) {
  const std::vector<Translation> want = TranslateAll(kTexts);
  EXPECT_THAT(EvaTranslate({"-"}, absl::StrCat("\n", kTexts[0], "\n \t\n\n", kTexts[2])),
              testing::ElementsAre("", want[0].text, "", "", want[2].text));
  EXPECT_THAT(EvaTranslate({"-", "--json"}, " \n"),
              testing::ElementsAre(R"({"text":" ","translation":""})"));
  EXPECT_THAT(EvaTranslate({"-"}), testing::ElementsAre(""));
}

TEST_F(TranslationTest, EvaSendsAsManyLinesAsTheModelTakes) {
  const std::vector<std::string> texts(12, kTexts[0]);
  EXPECT_THAT(EvaTranslate({"-"}, absl::StrJoin(texts, "\n")),
              testing::AllOf(testing::SizeIs(12), Each(TranslateAll(kTexts)[0].text)));
}

TEST_F(TranslationTest, AnErrorTellsWhichLinesItMeans) {
  const std::string input = std::string(40, '\n') + "e4\n\xff\n";
  Program eva(EVA_PROGRAM, {"translate", "--server", server_->target(), "-"}, input);
  EXPECT_EQ(eva.Wait(), 1);
  EXPECT_THAT(eva.Error(), HasSubstr("in texts 41 to 42, blank ones not counted: "
                                     "text_input: row 1 is not UTF-8"));
}

}  // namespace
}  // namespace evaserve

// Text with masks: its tokens, and what a model says to it.
#include "models/eva_encoder/masked_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/eva_encoder/testing/encoder_test.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
constexpr int64_t kBos = Dictionary::kBos, kEos = Dictionary::kEos, kUnknown = Dictionary::kUnknown;

class MaskedTextTest : public ::testing::Test {
 protected:
  absl::StatusOr<MaskedText> Read(const std::string& dictionary) {
    WriteFile(directory_.path() / "dict.txt", dictionary);
    return MaskedText::Load(directory_.path(), config_);
  }

  const TempDir directory_;
  EvaEncoderConfig config_ = {.vocab_size = 40};
};

TEST_F(MaskedTextTest, WordsAndMasksStandBetweenBosAndEos) {
  const auto text = Read(TinyDictionary());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->mask_token(), 39);
  EXPECT_THAT(text->Encode("w0 <mask>\tw34"), ElementsAre(kBos, 4, 39, 38, kEos));
  EXPECT_THAT(text->Encode("<mask>w1<mask><mask>."),
              ElementsAre(kBos, 39, 5, 39, 39, kUnknown, kEos));
  EXPECT_THAT(text->Encode("nobody <s> <unk> < mask>"),
              ElementsAre(kBos, kUnknown, kUnknown, kUnknown, kUnknown, kUnknown, kEos));
  EXPECT_THAT(text->Encode(" "), ElementsAre(kBos, kEos));
}

TEST_F(MaskedTextTest, TokensHaveWords) {
  const auto text = Read(TinyDictionary());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->Word(0), "<s>");
  EXPECT_EQ(text->Word(3), "<unk>");
  EXPECT_EQ(text->Word(4), "w0");
  EXPECT_EQ(text->Word(39), "<mask>");
  EXPECT_EQ(text->Word(-1), "");
  EXPECT_EQ(text->Word(40), "");
  EXPECT_EQ(text->max_word_bytes(), 6);
}

TEST_F(MaskedTextTest, TheMaskIsTheConfigsOrTheDictionarysOrTheNext) {
  const std::string words = TinyDictionary() + "<mask> 1\n";
  EXPECT_EQ(Read(words)->mask_token(), 39);
  EXPECT_EQ(Read("<mask> 1\n" + TinyDictionary())->mask_token(), 4);
  config_.mask_token = 7;
  EXPECT_EQ(Read(words)->mask_token(), 7);
  EXPECT_THAT(Read(words)->Encode("<mask>"), ElementsAre(kBos, 7, kEos));
  config_.mask_token.reset();
  EXPECT_THAT(Read(TinyDictionary() + "last 1\n").status(),
              IsError(kInvalid, "dict.txt: the 40 embeddings", "mask_token_id"));
}

TEST_F(MaskedTextTest, WordsMayBeBytePairs) {
  config_.has_bpe = true;
  EXPECT_THAT(Read(TinyDictionary()).status(), IsError(absl::StatusCode::kNotFound, "bpe.codes"));
  WriteFile(directory_.path() / "bpe.codes", "#version: 0.2\nt h\n");
  std::string words = "th@@ 1\ne 1\n";
  for (int i = 0; i < 30; ++i) words += "w" + std::to_string(i) + " 1\n";
  config_.vocab_size = 37;
  const auto text = Read(words);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(text->Encode("the <mask>"), ElementsAre(kBos, 4, 5, 36, kEos));
  EXPECT_EQ(text->Word(4), "th@@");
}

TEST_F(MaskedTextTest, NamesWhatIsWrong) {
  EXPECT_THAT(MaskedText::Load(directory_.path(), config_).status(),
              IsError(absl::StatusCode::kNotFound, "dict.txt"));
  EXPECT_THAT(Read("w0 1\n").status(), IsError(kInvalid, "dict.txt", "5 words"));
  config_.padding_idx = 0;
  EXPECT_THAT(Read(TinyDictionary()).status(), IsError(kInvalid, "\"padding_idx\"", "is 0"));
}

// A model with a dictionary.
class FillMaskTest : public EncoderTest {
 protected:
  FillMaskTest() {
    WriteFile(directory_.path() / "dict.txt", TinyDictionary());
    Load(TinyMaskedLmJson());
  }
};

TEST_F(FillMaskTest, SaysThatItTakesText) {
  const TensorModelInfo& info = model_->info();
  ASSERT_EQ(info.inputs.size(), 5);
  for (const TensorSpec& input : info.inputs) EXPECT_TRUE(input.is_optional) << input.name;
  EXPECT_EQ(info.inputs[4].name, "text_input");
  EXPECT_EQ(info.inputs[4].type, TensorType::kBytes);
  ASSERT_EQ(info.outputs.size(), 6);
  EXPECT_EQ(info.outputs[kTopWords].name, "top_words");
  EXPECT_EQ(info.outputs[kTopWords].type, TensorType::kBytes);
  EXPECT_EQ(info.parameters.at("mask_token_id"), "39");
}

TEST_F(FillMaskTest, TextIsItsTokens) {
  const TensorModel::Outputs text =
      Run(EncoderRequest(std::vector<std::string>{"w7 <mask>", "w1 w2 w3"}));
  EXPECT_THAT(text[kTopTokens].shape, ElementsAre(2, 1, 5));
  const EncoderRequest ids(TokenRows{{kBos, 11, 39, kEos}, {kBos, 5, 6, 7, kEos}});
  const TensorModel::Outputs expected = Run(ids);
  for (size_t i = 0; i < text.size(); ++i) {
    EXPECT_EQ(text[i].shape, expected[i].shape) << i;
    EXPECT_EQ(text[i].data, expected[i].data) << i;
  }
}

TEST_F(FillMaskTest, MasksAreFoundUnlessSomebodySaysWhere) {
  EncoderRequest ids(TokenRows{{4, 39, 5, 39}, {6, 7, 8, 39}});
  const TensorModel::Outputs found = Run(ids);
  EXPECT_THAT(found[kTopTokens].shape, ElementsAre(2, 2, 5));
  ids.SetMaskPositions({1, 3, 3, -1});
  const TensorModel::Outputs said = Run(ids);
  EXPECT_EQ(found[kTopTokens].data, said[kTopTokens].data);
  EXPECT_EQ(found[kTopLogprobs].data, said[kTopLogprobs].data);
}

TEST_F(FillMaskTest, WordsAreThoseOfTheTokens) {
  EncoderRequest request(std::vector<std::string>{"w7 <mask>", "w1 w2 w3", "<mask> <mask>"});
  request.SetTopK({3, 3, 2});
  request.SetWantedOutputs({kTopTokens, kTopWords});
  const TensorModel::Outputs outputs = Run(request);
  EXPECT_THAT(outputs[kTopWords].shape, ElementsAre(3, 2, 3));
  const auto tokens = ValuesOf<int64_t>(outputs[kTopTokens]);
  const auto words = BytesElements(outputs[kTopWords].data);
  ASSERT_EQ(words.size(), 18);
  ASSERT_EQ(tokens.size(), words.size());
  const MaskedText text = *MaskedText::Load(directory_.path(), {.vocab_size = 40});
  int num_words = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    EXPECT_EQ(words[i], text.Word(static_cast<TokenId>(tokens[i])));
    num_words += tokens[i] < 0 ? 0 : 1;
  }
  EXPECT_EQ(num_words, 3 + 2 + 2);
}

TEST_F(FillMaskTest, RefusesWhatATextHasItself) {
  EncoderRequest request(TokenRows{{4, 5, 6}});
  request.SetTexts({"w1"});
  EXPECT_THAT(ErrorOf(request), IsError(kInvalid, "inputs: got both of input_ids and text_input"));
  EncoderRequest text(std::vector<std::string>{"w1"});
  text.SetLengths({3});
  EXPECT_THAT(ErrorOf(text), IsError(kInvalid, "lengths: got it with text_input"));
  text.RemoveTexts();
  EXPECT_THAT(ErrorOf(text), IsError(kInvalid, "inputs: got neither of input_ids"));
}

TEST_F(FillMaskTest, RefusesTextsThatAreNone) {
  const auto error_of = [&](const std::string& text) {
    return ErrorOf(EncoderRequest(std::vector<std::string>{"w1", text}));
  };
  EXPECT_THAT(error_of("\xff"), IsError(kInvalid, "text_input: row 1 is not UTF-8"));
  EXPECT_THAT(error_of(std::string((1 << 15) + 1, 'w')),
              IsError(kInvalid, "text_input: row 1 has 32769 bytes"));
  std::string words;
  for (int i = 0; i < 63; ++i) words += "w1 ";
  EXPECT_THAT(error_of(words),
              IsError(kInvalid, "text_input: row 1 has 65 tokens", "allowed are 1 to 64"));
  EXPECT_TRUE(error_of("").ok());
}

TEST_F(FillMaskTest, ADictionaryThatCannotBeLookedForIsAnError) {
  std::filesystem::remove(directory_.path() / "dict.txt");
  std::filesystem::create_symlink("dict.txt", directory_.path() / "dict.txt");
  EXPECT_THAT(LoadEvaEncoderModel(directory_.path(), TinyMaskedLmJson(), {}, workers_).status(),
              IsError(absl::StatusCode::kInternal, "dict.txt"));
}

TEST_F(FillMaskTest, ADictionaryOfAnotherSizeIsAnErrorOfTheModel) {
  WriteFile(directory_.path() / "dict.txt", "w0 1\n");
  EXPECT_THAT(LoadEvaEncoderModel(directory_.path(), TinyMaskedLmJson(), {}, workers_).status(),
              IsError(kInvalid, "dict.txt", "5 words"));
}

}  // namespace
}  // namespace evaserve

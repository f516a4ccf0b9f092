#include "server/engine/generation.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/fakes/fake_tokenizer.h"

namespace evaserve {
namespace {

const FakeTokenizer kTokenizer;
const std::vector<TokenId> kEosTokens = {FakeTokenizer::kEos};

Generation MakeGeneration(const GenerateOptions& options = {}) {
  return Generation(options, options.max_new_tokens, kEosTokens, kTokenizer);
}

GenerateOptions UpTo(int64_t max_new_tokens) {
  GenerateOptions options;
  options.max_new_tokens = max_new_tokens;
  return options;
}

GenerateOptions StoppingAt(std::string stop, int64_t max_new_tokens = 256) {
  GenerateOptions options = UpTo(max_new_tokens);
  options.stop = {std::move(stop)};
  return options;
}

SampledToken Sampled(TokenId token) {
  return {.chosen = {.token = token, .logprob = -1.f}, .top = {}};
}

// Pushes the letters one after the other and returns the text that came out.
std::string PushAll(Generation& generation, std::string_view letters) {
  std::string text;
  for (char letter : letters) {
    text += generation.Push(Sampled(*kTokenizer.ByteToken(letter))).text;
  }
  return text;
}

TEST(GenerationTest, GivesEachTokenWithItsBytesAndLogprob) {
  Generation generation = MakeGeneration();

  const Generation::Output output = generation.Push(Sampled(*kTokenizer.ByteToken('x')));

  EXPECT_EQ(output.text, "x");
  EXPECT_EQ(output.token.bytes, "x");
  EXPECT_EQ(output.token.sample.chosen.logprob, -1.f);
  EXPECT_EQ(generation.finish_reason(), FinishReason::kNone);
}

TEST(GenerationTest, EndsAtMaxNewTokens) {
  Generation generation = MakeGeneration(UpTo(3));

  EXPECT_EQ(PushAll(generation, "abc"), "abc");
  EXPECT_EQ(generation.finish_reason(), FinishReason::kLength);
  EXPECT_EQ(generation.new_tokens(), 3);
  EXPECT_EQ(generation.new_bytes(), 3);
}

TEST(GenerationTest, EndsAtEosWithoutItsBytes) {
  Generation generation = MakeGeneration();
  PushAll(generation, "ab");

  const Generation::Output output = generation.Push(Sampled(FakeTokenizer::kEos));

  EXPECT_EQ(output.text, "");
  EXPECT_EQ(output.token.bytes, "");
  EXPECT_EQ(generation.finish_reason(), FinishReason::kEos);
  EXPECT_EQ(generation.new_tokens(), 3);
  EXPECT_EQ(generation.new_bytes(), 2);
}

TEST(GenerationTest, EosAddsNoBytesEvenIfItIsAByte) {
  const std::vector<TokenId> newline = {*kTokenizer.ByteToken('\n')};
  Generation generation({}, /*max_new_tokens=*/10, newline, kTokenizer);

  EXPECT_EQ(PushAll(generation, "ab\n"), "ab");
  EXPECT_EQ(generation.finish_reason(), FinishReason::kEos);
}

TEST(GenerationTest, GoesOnAfterEosWithIgnoreEos) {
  GenerateOptions options;
  options.ignore_eos = true;
  Generation generation = MakeGeneration(options);

  const Generation::Output output = generation.Push(Sampled(FakeTokenizer::kEos));

  EXPECT_EQ(output.text, "");
  EXPECT_EQ(generation.finish_reason(), FinishReason::kNone);
}

TEST(GenerationTest, EndsBeforeAStopString) {
  Generation generation = MakeGeneration(StoppingAt("cd"));

  EXPECT_EQ(PushAll(generation, "abcd"), "ab");
  EXPECT_EQ(generation.finish_reason(), FinishReason::kStop);
  EXPECT_EQ(generation.stop(), "cd");
  EXPECT_EQ(generation.new_tokens(), 4);
  EXPECT_EQ(generation.new_bytes(), 2);
}

TEST(GenerationTest, KeepsTheStopStringWithIncludeStop) {
  GenerateOptions options = StoppingAt("cd");
  options.include_stop = true;
  Generation generation = MakeGeneration(options);

  EXPECT_EQ(PushAll(generation, "abcd"), "abcd");
}

TEST(GenerationTest, AStopStringThatEndsAtTheLimitIsAStop) {
  Generation generation = MakeGeneration(StoppingAt("cd", 4));

  EXPECT_EQ(PushAll(generation, "abcd"), "ab");
  EXPECT_EQ(generation.finish_reason(), FinishReason::kStop);
}

TEST(GenerationTest, HoldsNothingBackAtTheLimit) {
  Generation generation = MakeGeneration(StoppingAt("cd", 3));

  EXPECT_EQ(PushAll(generation, "abc"), "abc");
}

TEST(GenerationTest, HoldsNothingBackAtEos) {
  Generation generation = MakeGeneration(StoppingAt("cd"));
  EXPECT_EQ(PushAll(generation, "abc"), "ab");

  EXPECT_EQ(generation.Push(Sampled(FakeTokenizer::kEos)).text, "c");
}

}  // namespace
}  // namespace evaserve

#include "server/engine/request_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/fakes/fake_model.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

constexpr RequestLimits kLimits{.vocab_size = 320, .max_seq_len = 100, .max_pool_tokens = 80};

Request WithTokens(int num_tokens, Task task = Task::kGenerate) {
  Request request;
  request.task = task;
  request.tokens.assign(num_tokens, 65);
  request.generate.max_new_tokens = 1;
  return request;
}

std::string Refusal(const Request& request, const RequestLimits& limits = kLimits) {
  const absl::Status status = CheckRequest(request, limits);
  EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
  return std::string(status.message());
}

TEST(RequestCheckTest, AcceptsWhatFits) {
  EXPECT_EQ(Refusal(WithTokens(1)), "");
  EXPECT_EQ(Refusal(WithTokens(80)), "");
  EXPECT_EQ(Refusal(WithTokens(2, Task::kScore)), "");
  EXPECT_EQ(Refusal(WithTokens(80, Task::kEmbed)), "");
}

TEST(RequestCheckTest, RefusesNothing) {
  EXPECT_EQ(Refusal(WithTokens(0)), "prompt is empty");
  EXPECT_EQ(Refusal(WithTokens(0, Task::kScore)), "text is empty");
}

TEST(RequestCheckTest, RefusesATextOfOneToken) {
  EXPECT_EQ(Refusal(WithTokens(1, Task::kScore)),
            "text has 1 token, at least 2 are needed; is it empty?");
  EXPECT_EQ(Refusal(WithTokens(1, Task::kEmbed)),
            "text has 1 token, at least 2 are needed; is it empty?");
}

TEST(RequestCheckTest, RefusesAPromptWithoutRoomForANewToken) {
  const RequestLimits limits{.vocab_size = 320, .max_seq_len = 32768, .max_pool_tokens = 1 << 20};

  EXPECT_EQ(Refusal(WithTokens(32767), limits), "");
  EXPECT_EQ(Refusal(WithTokens(70000), limits),
            "prompt has 70000 tokens, the limit is 32767 (max_seq_len 32768 less 1 new token)");
}

TEST(RequestCheckTest, RefusesATextBeyondTheModelsLength) {
  const RequestLimits limits{.vocab_size = 320, .max_seq_len = 100, .max_pool_tokens = 1000};

  EXPECT_EQ(Refusal(WithTokens(100, Task::kScore), limits), "");
  EXPECT_EQ(Refusal(WithTokens(101, Task::kScore), limits),
            "text has 101 tokens, the limit is 100 (max_seq_len)");
}

TEST(RequestCheckTest, RefusesWhatCanNeverFitThePool) {
  EXPECT_EQ(Refusal(WithTokens(81)), "prompt has 81 tokens, the limit is 80 (state pool)");

  Request request = WithTokens(71);
  request.generate.max_new_tokens = 10;  // the last one needs no state
  EXPECT_EQ(Refusal(request), "");
  request.generate.max_new_tokens = 11;
  EXPECT_EQ(Refusal(request),
            "max_new_tokens is 11, the limit is 10 after a prompt of 71 tokens (state pool)");
}

TEST(RequestCheckTest, RefusesTokensOutsideTheVocabulary) {
  Request request = WithTokens(3);
  request.tokens[1] = 320;
  EXPECT_EQ(Refusal(request), "prompt has token 320 at 1, the vocabulary has 320");
  request.tokens[1] = -1;
  EXPECT_EQ(Refusal(request), "prompt has token -1 at 1, the vocabulary has 320");
}

TEST(RequestCheckTest, RefusesBadOptions) {
  Request request = WithTokens(3);
  request.generate.max_new_tokens = 0;
  EXPECT_EQ(Refusal(request), "max_new_tokens is 0, it must be at least 1");

  request = WithTokens(3);
  request.generate.stop = {"a", ""};
  EXPECT_EQ(Refusal(request), "stop[1] is empty");

  request = WithTokens(3);
  request.generate.sampling.temperature = -1;
  EXPECT_THAT(Refusal(request), HasSubstr("temperature"));

  request = WithTokens(3);
  request.generate.sampling.logit_bias = {{320, 1.f}};
  EXPECT_EQ(Refusal(request), "logit_bias has token 320, the vocabulary has 320");
}

TEST(RequestCheckTest, OptionsOfAGenerationDoNotMatterToAScore) {
  Request request = WithTokens(3, Task::kScore);
  request.generate.max_new_tokens = 0;

  EXPECT_EQ(Refusal(request), "");
}

TEST(RequestCheckTest, CapsNewTokensAtTheModelsLength) {
  Request request = WithTokens(90);
  request.generate.max_new_tokens = 5;
  EXPECT_EQ(MaxNewTokens(request, kLimits), 5);

  request.generate.max_new_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(MaxNewTokens(request, kLimits), 10);
}

// 16 tokens and 4 summaries for each finished window, 4 slots a page.
TEST(RequestCheckTest, FindsTheLongestSequenceThatThePoolHolds) {
  for (int total_pages : {0, 1, 3, 4, 5, 6, 20, 10000}) {
    const FakeModel model({.total_pages = total_pages, .max_seq_len = 500});
    const RequestLimits limits = LimitsOf(model);

    int64_t longest = 0;
    while (longest < 500 && model.PagesFor(longest + 1) <= total_pages) ++longest;
    EXPECT_EQ(limits.max_pool_tokens, longest) << total_pages;
  }
}

}  // namespace
}  // namespace evaserve

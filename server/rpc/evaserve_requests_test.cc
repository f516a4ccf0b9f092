#include "server/rpc/evaserve_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "models/testing/status_matchers.h"
#include "models/text/word_tokenizer.h"
#include "tests/fakes/fake_tokenizer.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

v1::GenerateRequest Prompt(const std::string& prompt) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  return request;
}

absl::StatusOr<Request> Make(const v1::GenerateRequest& request, const ModelInfo& info = {}) {
  return MakeRequest(request, info, FakeTokenizer());
}

TEST(EvaserveRequestsTest, TakesEveryFieldOfAGeneration) {
  v1::GenerateRequest from = Prompt("ab");
  auto& sampling = *from.mutable_sampling();
  sampling.set_temperature(0.5);
  sampling.set_top_k(3);
  sampling.set_top_p(0.9);
  sampling.set_min_p(0.1);
  sampling.set_repetition_penalty(1.1);
  sampling.set_seed(7);
  (*sampling.mutable_logit_bias())['b'] = -100;
  (*sampling.mutable_logit_bias())['a'] = 1;
  auto& stopping = *from.mutable_stopping();
  stopping.set_max_new_tokens(9);
  stopping.add_stop("x");
  stopping.set_include_stop(true);
  stopping.set_ignore_eos(true);
  from.set_logprobs(true);
  from.set_top_logprobs(20);

  const auto request = Make(from);

  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->tokens, FakeTokenizer().Encode("ab", false));
  const GenerateOptions& options = request->generate;
  EXPECT_EQ(options.sampling.temperature, 0.5);
  EXPECT_EQ(options.sampling.top_k, 3);
  EXPECT_EQ(options.sampling.top_p, 0.9);
  EXPECT_EQ(options.sampling.min_p, 0.1);
  EXPECT_EQ(options.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(options.sampling.seed, 7u);
  EXPECT_THAT(options.sampling.logit_bias,
              ElementsAre(Pair(64 + 'a', 1.f), Pair(64 + 'b', -100.f)));
  EXPECT_EQ(options.sampling.top_logprobs, 20);
  EXPECT_EQ(options.max_new_tokens, 9);
  EXPECT_THAT(options.stop, ElementsAre("x"));
  EXPECT_TRUE(options.include_stop);
  EXPECT_TRUE(options.ignore_eos);
}

TEST(EvaserveRequestsTest, TakesTheModelsDefaultsForWhatIsAbsent) {
  ModelInfo info;
  info.default_sampling = {.temperature = 0.25, .top_p = 0.5};
  v1::GenerateRequest from = Prompt("a");
  from.mutable_sampling()->set_top_p(1);

  const auto request = Make(from, info);

  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->generate.sampling.temperature, 0.25);
  EXPECT_EQ(request->generate.sampling.top_p, 1);
  EXPECT_EQ(request->generate.max_new_tokens, 256);
}

TEST(EvaserveRequestsTest, PutsAChatThroughTheModelsTemplate) {
  v1::GenerateRequest from;
  auto* message = from.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("hi");

  const auto request = Make(from);

  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->tokens, FakeTokenizer().Encode("user: hi\n", false));
  EXPECT_EQ(InputBytes(from), 2);
}

TEST(EvaserveRequestsTest, TextFromStrangersMakesNoControlTokens) {
  const auto request = Make(Prompt("<eos>"));

  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->tokens.size(), 6u);
}

class WordsTest : public ::testing::Test {
 protected:
  absl::StatusOr<Request> Make(const v1::GenerateRequest& from, uint64_t bytes_to_come = 0) {
    return MakeRequest(from, {}, tokenizer_, bytes_to_come);
  }

  const WordTokenizer tokenizer_{*Dictionary::Parse("the 2\ncat 1\n", "dict.txt", 6),
                                 Dictionary::kEos};
};

TEST_F(WordsTest, AreTheTokens) {
  EXPECT_EQ(Make(Prompt("the cat"))->tokens, (std::vector<TokenId>{2, 4, 5}));
}

TEST_F(WordsTest, BiasesAreOfTokens) {
  v1::GenerateRequest from = Prompt("the");
  (*from.mutable_sampling()->mutable_logit_bias())[5] = 1;
  (*from.mutable_sampling()->mutable_logit_bias())[300] = -100;

  EXPECT_THAT(Make(from)->generate.sampling.logit_bias,
              ElementsAre(Pair(5, 1.f), Pair(300, -100.f)));

  (*from.mutable_sampling()->mutable_logit_bias())[uint32_t{1} << 31] = 1;
  EXPECT_THAT(Make(from).status(), IsError(absl::StatusCode::kInvalidArgument, "logit_bias",
                                           "2147483648", "tokens, 0 .. 2147483647"));
}

TEST_F(WordsTest, ComeWhole) {
  EXPECT_THAT(Make(Prompt("the c"), 2).status(),
              IsError(absl::StatusCode::kInvalidArgument, "bytes_to_come is 2", "must be 0"));
}

TEST_F(WordsTest, AreReportedWithTheSpaceBefore) {
  v1::GenerateResponse response;
  AddToken({.sample = {.chosen = {5, -1.f}, .top = {{0, -2.f}}}}, tokenizer_, response);
  EXPECT_EQ(response.tokens(0).chosen().bytes(), " cat");
  EXPECT_EQ(response.tokens(0).top(0).control_token(), "<s>");
}

struct BadRequest {
  const char* name;
  std::function<void(v1::GenerateRequest&)> spoil;
  const char* field;
};

class BadRequestTest : public ::testing::TestWithParam<BadRequest> {};

TEST_P(BadRequestTest, IsRefusedByField) {
  v1::GenerateRequest request = Prompt("a");
  GetParam().spoil(request);

  const absl::Status status = Make(request).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().field));
}

using Req = v1::GenerateRequest;

void SetRole(Req& request, const char* role) {
  request.mutable_chat()->add_messages()->set_role(role);
}

const BadRequest kBadRequests[] = {
    {"NoInput", [](Req& r) { r.clear_prompt(); }, "prompt and chat are both absent"},
    {"EmptyPrompt", [](Req& r) { r.set_prompt(""); }, "prompt is empty"},
    {"EmptyChat", [](Req& r) { r.mutable_chat(); }, "messages"},
    {"BadRole", [](Req& r) { SetRole(r, "robot"); }, "role is \"robot\""},
    {"NegativeTemperature", [](Req& r) { r.mutable_sampling()->set_temperature(-0.1); },
     "temperature is -0.1"},
    {"TemperatureIsNaN", [](Req& r) { r.mutable_sampling()->set_temperature(NAN); },
     "temperature is nan"},
    {"TemperatureIsInfinite", [](Req& r) { r.mutable_sampling()->set_temperature(INFINITY); },
     "temperature is inf"},
    {"TopPZero", [](Req& r) { r.mutable_sampling()->set_top_p(0); }, "top_p is 0"},
    {"TopPAboveOne", [](Req& r) { r.mutable_sampling()->set_top_p(1.01); }, "top_p is 1.01"},
    {"TopPIsNaN", [](Req& r) { r.mutable_sampling()->set_top_p(NAN); }, "top_p is nan"},
    {"HugeTopK", [](Req& r) { r.mutable_sampling()->set_top_k(1u << 31); },
     "top_k is 2147483648, allowed is at most 2147483647"},
    {"NegativeMinP", [](Req& r) { r.mutable_sampling()->set_min_p(-1); }, "min_p is -1"},
    {"MinPAboveOne", [](Req& r) { r.mutable_sampling()->set_min_p(2); }, "min_p is 2"},
    {"PenaltyZero", [](Req& r) { r.mutable_sampling()->set_repetition_penalty(0); },
     "repetition_penalty is 0"},
    {"PenaltyIsNaN", [](Req& r) { r.mutable_sampling()->set_repetition_penalty(NAN); },
     "repetition_penalty is nan"},
    {"BiasKey", [](Req& r) { (*r.mutable_sampling()->mutable_logit_bias())[256] = 1; },
     "logit_bias has key 256, allowed are bytes, 0 .. 255"},
    {"BiasValue", [](Req& r) { (*r.mutable_sampling()->mutable_logit_bias())[1] = 101; },
     "logit_bias"},
    {"BiasIsNaN", [](Req& r) { (*r.mutable_sampling()->mutable_logit_bias())[1] = NAN; },
     "logit_bias"},
    {"NoNewTokens", [](Req& r) { r.mutable_stopping()->set_max_new_tokens(0); },
     "max_new_tokens is 0, it must be at least 1"},
    {"HugeNewTokens",
     [](Req& r) { r.mutable_stopping()->set_max_new_tokens(std::numeric_limits<uint64_t>::max()); },
     "max_new_tokens is 18446744073709551615"},
    {"EmptyStop", [](Req& r) { r.mutable_stopping()->add_stop(""); },
     "stop[0] has 0 bytes, allowed are 1 .. 256"},
    {"LongStop", [](Req& r) { r.mutable_stopping()->add_stop(std::string(257, 'x')); },
     "stop[0] has 257 bytes, allowed are 1 .. 256"},
    {"ManyStops",
     [](Req& r) {
       for (int i = 0; i < 17; ++i) r.mutable_stopping()->add_stop("x");
     },
     "stop has 17 strings, allowed are at most 16"},
    {"ManyTopLogprobs",
     [](Req& r) {
       r.set_logprobs(true);
       r.set_top_logprobs(21);
     },
     "top_logprobs is 21, allowed is at most 20"},
    {"TopLogprobsAlone", [](Req& r) { r.set_top_logprobs(1); },
     "top_logprobs is 1, it must be 0 unless logprobs is set"},
};

INSTANTIATE_TEST_SUITE_P(All, BadRequestTest, ::testing::ValuesIn(kBadRequests),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(EvaserveRequestsTest, RefusesEmptyTextToScoreAndToEmbed) {
  for (const absl::Status& status : {MakeRequest(v1::ScoreRequest(), FakeTokenizer()).status(),
                                     MakeRequest(v1::EmbedRequest(), FakeTokenizer()).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("text is empty"));
  }
}

TEST(EvaserveRequestsTest, ScoreIsTheSumAndItsBitsForEachByte) {
  v1::ScoreRequest request;
  request.set_text("ab");
  request.set_per_byte(true);
  Completion completion;
  completion.logprobs = {-1.f, -0.5f};
  v1::ScoreResponse response;

  FillScore(completion, request, response);

  EXPECT_DOUBLE_EQ(response.log_likelihood(), -1.5);
  EXPECT_DOUBLE_EQ(response.bits_per_byte(), 0.75 / std::log(2.0));
  EXPECT_THAT(response.logprobs(), ElementsAre(-1.f, -0.5f));
}

TEST(EvaserveRequestsTest, TokensCarryTheirBytesOrTheirName) {
  const FakeTokenizer tokenizer;
  GeneratedToken token;
  token.sample.chosen = {FakeTokenizer::kEos, -0.5f};
  token.sample.top = {{*tokenizer.ByteToken('x'), -0.25f}};
  v1::GenerateResponse response;

  AddToken(token, tokenizer, response);

  ASSERT_EQ(response.tokens_size(), 1);
  EXPECT_EQ(response.tokens(0).chosen().control_token(), "<eos>");
  EXPECT_EQ(response.tokens(0).chosen().bytes(), "");
  EXPECT_EQ(response.tokens(0).chosen().logprob(), -0.5f);
  EXPECT_EQ(response.tokens(0).top(0).bytes(), "x");
}

}  // namespace
}  // namespace evaserve

#include "server/rpc/infer_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace evaserve {
namespace {

using inference::InferParameter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

InferParameter Int(int64_t value) {
  InferParameter parameter;
  parameter.set_int64_param(value);
  return parameter;
}

InferParameter Uint(uint64_t value) {
  InferParameter parameter;
  parameter.set_uint64_param(value);
  return parameter;
}

InferParameter Double(double value) {
  InferParameter parameter;
  parameter.set_double_param(value);
  return parameter;
}

InferParameter Bool(bool value) {
  InferParameter parameter;
  parameter.set_bool_param(value);
  return parameter;
}

InferParameter String(const std::string& value) {
  InferParameter parameter;
  parameter.set_string_param(value);
  return parameter;
}

absl::StatusOr<InferParameters> Parse(
    const std::vector<std::pair<std::string, InferParameter>>& parameters,
    const SamplingParams& defaults = {}) {
  google::protobuf::Map<std::string, InferParameter> map;
  for (const auto& [name, value] : parameters) map[name] = value;
  return ParseInferParameters(map, defaults);
}

TEST(InferParametersTest, ReadsThemAll) {
  const auto parameters = Parse({{"max_tokens", Int(7)},
                                 {"temperature", Double(0.5)},
                                 {"top_k", Int(3)},
                                 {"top_p", Double(0.9)},
                                 {"min_p", Double(0.1)},
                                 {"repetition_penalty", Double(1.1)},
                                 {"seed", Uint(~uint64_t{0})},
                                 {"stop", String("\n\n")},
                                 {"include_stop_str_in_output", Bool(true)},
                                 {"ignore_eos", Bool(true)},
                                 {"timeout", Int(1500)},
                                 {"triton_enable_empty_final_response", Bool(true)}});

  ASSERT_TRUE(parameters.ok()) << parameters.status();
  const GenerateOptions& generate = parameters->generate;
  EXPECT_EQ(generate.max_new_tokens, 7);
  EXPECT_EQ(generate.sampling.temperature, 0.5);
  EXPECT_EQ(generate.sampling.top_k, 3);
  EXPECT_EQ(generate.sampling.top_p, 0.9);
  EXPECT_EQ(generate.sampling.min_p, 0.1);
  EXPECT_EQ(generate.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(generate.sampling.seed, ~uint64_t{0});
  EXPECT_THAT(generate.stop, ElementsAre("\n\n"));
  EXPECT_TRUE(generate.include_stop);
  EXPECT_TRUE(generate.ignore_eos);
  EXPECT_EQ(parameters->timeout, std::chrono::microseconds(1500));
  EXPECT_TRUE(parameters->empty_final_response);
}

TEST(InferParametersTest, TakesTheModelsDefaultsForWhatIsAbsent) {
  const auto parameters = Parse({{"top_k", Int(5)}}, {.temperature = 0.25, .top_k = 9});

  ASSERT_TRUE(parameters.ok()) << parameters.status();
  EXPECT_EQ(parameters->generate.sampling.temperature, 0.25);
  EXPECT_EQ(parameters->generate.sampling.top_k, 5);
  EXPECT_EQ(parameters->generate.max_new_tokens, 256);
}

TEST(InferParametersTest, TakesWholeNumbersInEveryNumericType) {
  for (const InferParameter& seven : {Int(7), Uint(7), Double(7)}) {
    const auto parameters = Parse({{"max_tokens", seven}});
    ASSERT_TRUE(parameters.ok()) << parameters.status();
    EXPECT_EQ(parameters->generate.max_new_tokens, 7);
  }
}

TEST(InferParametersTest, TakesFractionsInStrings) {
  const auto parameters = Parse({{"temperature", String("0.5")}, {"top_p", String("1e-1")}});

  ASSERT_TRUE(parameters.ok()) << parameters.status();
  EXPECT_EQ(parameters->generate.sampling.temperature, 0.5);
  EXPECT_EQ(parameters->generate.sampling.top_p, 0.1);
}

TEST(InferParametersTest, TakesWhatTritonsClientsSendOfTheirOwnAccord) {
  EXPECT_TRUE(Parse({{"triton_enable_empty_final_response", Bool(false)},
                     {"priority", Uint(0)},
                     {"timeout", Int(0)},
                     {"sequence_id", Int(0)},
                     {"sequence_start", Bool(false)},
                     {"sequence_end", Bool(false)}})
                  .ok());
}

struct BadParameter {
  const char* test;
  const char* name;
  InferParameter value;
  const char* message;
};

class BadParameterTest : public ::testing::TestWithParam<BadParameter> {};

TEST_P(BadParameterTest, IsRefusedByNameValueAndWhatIsAllowed) {
  const absl::Status status = Parse({{GetParam().name, GetParam().value}}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

const BadParameter kBadParameters[] = {
    {"Unknown", "max_new_tokens", Int(1),
     "parameters: got 'max_new_tokens', allowed are max_tokens, temperature"},
    {"UnknownOfTriton", "triton_future", Bool(true), "parameters: got 'triton_future'"},
    {"NothingSet", "temperature", InferParameter(),
     "temperature: got nothing, allowed is a number"},
    {"NumberInString", "max_tokens", String("7"),
     "max_tokens: got string '7', allowed is an integer"},
    {"NoTokens", "max_tokens", Int(0), "max_tokens: got integer 0, allowed is an integer from 1"},
    {"NegativeTokens", "max_tokens", Int(-1), "max_tokens: got integer -1"},
    {"HalfAToken", "max_tokens", Double(0.5), "max_tokens: got number 0.5"},
    {"TokensAreNaN", "max_tokens", Double(NAN), "max_tokens: got number nan"},
    {"TooManyTokens", "max_tokens", Uint(~uint64_t{0}), "max_tokens: got integer 1844674407370955"},
    {"BoolTemperature", "temperature", Bool(true),
     "temperature: got bool true, allowed is a number"},
    {"WordForTemperature", "temperature", String("0.5 or so"),
     "temperature: got string '0.5 or so', allowed is a number"},
    {"EmptyTemperature", "temperature", String(""), "temperature: got string ''"},
    {"TemperatureIsNaNInAString", "temperature", String("nan"), "temperature"},
    {"NegativeTemperature", "temperature", Double(-1), "temperature"},
    {"TemperatureIsNaN", "temperature", Double(NAN), "temperature"},
    {"TemperatureIsInfinite", "temperature", Double(INFINITY), "temperature"},
    {"TopPZero", "top_p", Double(0), "top_p"},
    {"TopPAboveOne", "top_p", Double(1.5), "top_p"},
    {"NegativeTopK", "top_k", Int(-1), "top_k: got integer -1, allowed is an integer from 0 to"},
    {"HugeTopK", "top_k", Int(int64_t{1} << 31), "top_k: got integer 2147483648"},
    {"MinPAboveOne", "min_p", Double(1.1), "min_p"},
    {"PenaltyZero", "repetition_penalty", Double(0), "repetition_penalty"},
    {"NegativeSeed", "seed", Int(-1), "seed: got integer -1, allowed is an integer from 0"},
    {"NumberStop", "stop", Int(1), "stop: got integer 1, allowed is a string"},
    {"EmptyStop", "stop", String(""), "stop[0] has 0 bytes"},
    {"LongStop", "stop", String(std::string(257, 'x')),
     "stop[0] has 257 bytes, allowed are 1 .. 256"},
    {"NumberForBool", "ignore_eos", Int(1), "ignore_eos: got integer 1, allowed is a bool"},
    {"NegativeTimeout", "timeout", Int(-5), "timeout: got integer -5"},
    {"HugeTimeout", "timeout", Int(std::numeric_limits<int64_t>::max()), "timeout: got integer"},
    {"Priority", "priority", Uint(16),
     "priority: got integer 16, allowed is an integer from 0 to 15"},
};

TEST(InferParametersTest, SequencesAreNotSupported) {
  const auto error_of = [](const char* name, const InferParameter& value) {
    return Parse({{name, value}}).status();
  };

  EXPECT_EQ(error_of("sequence_id", Int(42)),
            absl::UnimplementedError("sequence_id: got integer 42, allowed is 0: there are no "
                                     "sequences here, each request is whole"));
  EXPECT_TRUE(absl::IsUnimplemented(error_of("sequence_id", String("s"))));
  EXPECT_TRUE(absl::IsUnimplemented(error_of("sequence_start", Bool(true))));
  EXPECT_TRUE(absl::IsUnimplemented(error_of("sequence_end", Bool(true))));
}

INSTANTIATE_TEST_SUITE_P(All, BadParameterTest, ::testing::ValuesIn(kBadParameters),
                         [](const auto& info) { return std::string(info.param.test); });

}  // namespace
}  // namespace evaserve

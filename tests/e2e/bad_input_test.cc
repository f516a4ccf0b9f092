// Every kind of bad request gets the status and a message that names what was wrong, and the server
// serves on.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <functional>

#include "inference/open_inference.grpc.pb.h"
#include "models/testing/status_matchers.h"
#include "tests/e2e/test_server.h"

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using testing::HasSubstr;

// Requests wrong in one way each.
template <typename Request>
struct BadCase {
  const char* name;
  std::function<void(Request&)> spoil;
  absl::StatusCode code;
  std::string message_part;
};

template <typename Request>
void PrintTo(const BadCase<Request>& bad_case, std::ostream* out) {
  *out << bad_case.name;
}

template <typename Request>
std::string CaseName(const testing::TestParamInfo<BadCase<Request>>& info) {
  return info.param.name;
}

class BadGenerateTest : public testing::TestWithParam<BadCase<v1::GenerateRequest>> {};

TEST_P(BadGenerateTest, IsRefusedAndNamed) {
  v1::GenerateRequest request = GreedyRequest("abc", 5);
  GetParam().spoil(request);

  GenerateStream stream = SharedServer().client().Generate(request);

  EXPECT_FALSE(stream.Next().has_value());
  const absl::Status status = stream.Finish();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message_part));
  EXPECT_FALSE(GenerateAll(SharedServer().client(), GreedyRequest("abc", 5)).empty());
}

using G = v1::GenerateRequest;
INSTANTIATE_TEST_SUITE_P(
    E2e, BadGenerateTest,
    testing::ValuesIn(std::vector<BadCase<G>>{
        {"NoInput", [](G& r) { r.clear_prompt(); }, kInvalid, "prompt"},
        {"EmptyPrompt", [](G& r) { r.set_prompt(""); }, kInvalid, "prompt"},
        {"PromptBeyondTheModel",
         [](G& r) { r.set_prompt(std::string(LongTinyConfig().max_positions + 1, 'a')); }, kInvalid,
         std::to_string(LongTinyConfig().max_positions)},
        {"NoMessages", [](G& r) { r.mutable_chat(); }, kInvalid, "chat"},
        {"ChatWithoutATemplate", [](G& r) { r.mutable_chat()->add_messages()->set_role("user"); },
         kInvalid, "chat template"},
        {"NegativeTemperature", [](G& r) { r.mutable_sampling()->set_temperature(-1); }, kInvalid,
         "temperature"},
        {"TemperatureIsNan", [](G& r) { r.mutable_sampling()->set_temperature(std::nan("")); },
         kInvalid, "temperature"},
        {"ZeroTopP", [](G& r) { r.mutable_sampling()->set_top_p(0); }, kInvalid, "top_p"},
        {"TopPAboveOne", [](G& r) { r.mutable_sampling()->set_top_p(1.5); }, kInvalid, "top_p"},
        {"NegativeMinP", [](G& r) { r.mutable_sampling()->set_min_p(-0.1); }, kInvalid, "min_p"},
        {"ZeroRepetitionPenalty", [](G& r) { r.mutable_sampling()->set_repetition_penalty(0); },
         kInvalid, "repetition_penalty"},
        {"BiasOfNoByte", [](G& r) { (*r.mutable_sampling()->mutable_logit_bias())[256] = 1; },
         kInvalid, "logit_bias"},
        {"BiasTooLarge", [](G& r) { (*r.mutable_sampling()->mutable_logit_bias())[65] = 101; },
         kInvalid, "logit_bias"},
        {"ZeroTokens", [](G& r) { r.mutable_stopping()->set_max_new_tokens(0); }, kInvalid,
         "max_new_tokens"},
        {"EmptyStop", [](G& r) { r.mutable_stopping()->add_stop(std::string()); }, kInvalid,
         "stop"},
        {"LongStop", [](G& r) { r.mutable_stopping()->add_stop(std::string(257, 'a')); }, kInvalid,
         "stop"},
        {"ManyStops",
         [](G& r) {
           for (int i = 0; i < 17; ++i) r.mutable_stopping()->add_stop(std::string(1, 'a'));
         },
         kInvalid, "stop"},
        {"ManyTopLogprobs", [](G& r) { r.set_top_logprobs(21); }, kInvalid, "top_logprobs"},
        {"UnknownModel", [](G& r) { r.set_model("other"); }, absl::StatusCode::kNotFound, "tiny"},
    }),
    CaseName<G>);

TEST(BadScoreTest, AnEmptyTextIsRefused) {
  const auto score = SharedServer().client().Score(v1::ScoreRequest());

  EXPECT_EQ(score.status().code(), kInvalid) << score.status();
  EXPECT_THAT(std::string(score.status().message()), HasSubstr("text"));
}

TEST(BadScoreTest, ATextBeyondTheModelIsRefused) {
  v1::ScoreRequest request;
  request.set_text(std::string(LongTinyConfig().max_positions, 'a'));

  const auto score = SharedServer().client().Score(request);

  EXPECT_EQ(score.status().code(), kInvalid) << score.status();
}

TEST(BadEmbedTest, AnEmptyTextIsRefused) {
  const auto embedding = SharedServer().client().Embed(v1::EmbedRequest());

  EXPECT_EQ(embedding.status().code(), kInvalid) << embedding.status();
  EXPECT_THAT(std::string(embedding.status().message()), HasSubstr("text"));
}

TEST(BadEmbedTest, AnUnknownModelIsNotFound) {
  v1::EmbedRequest request;
  request.set_text("a");
  request.set_model("other");

  EXPECT_TRUE(absl::IsNotFound(SharedServer().client().Embed(request).status()));
}

TEST(BadMessageTest, AMessageAboveTheLimitIsRefused) {
  Config config;
  config.max_message_mb = 1;
  TestServer server(config);
  v1::ScoreRequest request;
  request.set_text(std::string(2 << 20, 'a'));

  EXPECT_TRUE(absl::IsResourceExhausted(server.client().Score(request).status()));
  EXPECT_FALSE(GenerateAll(server.client(), GreedyRequest("abc", 5)).empty());
}

TEST(BadMetadataTest, MoreThan16KiBIsRefused) {
  // Each on a connection of its own: the server closes one with too much.
  auto code = [](size_t num_bytes) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto stub = inference::GRPCInferenceService::NewStub(grpc::CreateCustomChannel(
        SharedServer().target(), grpc::InsecureChannelCredentials(), arguments));
    grpc::ClientContext context;
    context.AddMetadata("x-note", std::string(num_bytes, 'a'));
    inference::ServerLiveResponse response;
    return stub->ServerLive(&context, {}, &response).error_code();
  };

  EXPECT_EQ(code(20 << 10), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(code(12 << 10), grpc::StatusCode::OK);
}

// An element of BYTES in raw contents.
std::string RawElement(const std::string& bytes, uint32_t length) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + bytes;
}

ModelInferRequest GoodInferRequest() {
  ModelInferRequest request;
  request.set_model_name("tiny");
  (*request.mutable_parameters())["max_tokens"].set_int64_param(5);
  (*request.mutable_parameters())["temperature"].set_double_param(0);
  auto& input = *request.add_inputs();
  input.set_name("text_input");
  input.set_datatype("BYTES");
  input.add_shape(1);
  request.add_raw_input_contents(RawElement("abc", 3));
  return request;
}

class BadInferTest : public testing::TestWithParam<BadCase<ModelInferRequest>> {
 protected:
  grpc::Status Infer(const ModelInferRequest& request) {
    grpc::ClientContext context;
    ModelInferResponse response;
    return stub_->ModelInfer(&context, request, &response);
  }

  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_ =
      inference::GRPCInferenceService::NewStub(
          grpc::CreateChannel(SharedServer().target(), grpc::InsecureChannelCredentials()));
};

TEST_P(BadInferTest, IsRefusedAndNamed) {
  ModelInferRequest request = GoodInferRequest();
  GetParam().spoil(request);

  const grpc::Status status = Infer(request);

  EXPECT_EQ(static_cast<int>(status.error_code()), static_cast<int>(GetParam().code))
      << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr(GetParam().message_part));
  EXPECT_TRUE(Infer(GoodInferRequest()).ok());
}

using I = ModelInferRequest;
INSTANTIATE_TEST_SUITE_P(
    E2e, BadInferTest,
    testing::ValuesIn(std::vector<BadCase<I>>{
        {"UnknownModel", [](I& r) { r.set_model_name("other"); }, absl::StatusCode::kNotFound,
         "tiny"},
        {"UnknownVersion", [](I& r) { r.set_model_version("7"); }, absl::StatusCode::kNotFound,
         "7"},
        {"VersionIsNoNumber", [](I& r) { r.set_model_version("new"); }, kInvalid, "new"},
        {"NoInput",
         [](I& r) {
           r.clear_inputs();
           r.clear_raw_input_contents();
         },
         kInvalid, "text_input"},
        {"WrongTensorName", [](I& r) { r.mutable_inputs(0)->set_name("text"); }, kInvalid, "text"},
        {"WrongType", [](I& r) { r.mutable_inputs(0)->set_datatype("FP32"); }, kInvalid, "FP32"},
        {"WrongRank", [](I& r) { r.mutable_inputs(0)->add_shape(2); }, kInvalid, "[1,2]"},
        {"NegativeShape", [](I& r) { r.mutable_inputs(0)->set_shape(0, -1); }, kInvalid, "-1"},
        {"MoreElementsThanBytes", [](I& r) { r.mutable_inputs(0)->set_shape(0, 2); }, kInvalid,
         "text_input"},
        {"MoreBytesThanElements",
         [](I& r) { r.mutable_raw_input_contents(0)->append("left over"); }, kInvalid,
         "text_input"},
        {"ElementLongerThanItsBytes",
         [](I& r) { r.set_raw_input_contents(0, RawElement("abc", 4)); }, kInvalid, "4"},
        {"HugeElement", [](I& r) { r.set_raw_input_contents(0, RawElement("abc", 0xffffffff)); },
         kInvalid, "4294967295"},
        {"TooFewRawContents", [](I& r) { r.clear_raw_input_contents(); }, kInvalid, "text_input"},
        {"TooManyRawContents", [](I& r) { r.add_raw_input_contents(RawElement("a", 1)); }, kInvalid,
         "raw_input_contents"},
        {"RawAndTypedContents",
         [](I& r) { r.mutable_inputs(0)->mutable_contents()->add_bytes_contents("a"); }, kInvalid,
         "contents"},
        {"EmptyText", [](I& r) { r.set_raw_input_contents(0, RawElement("", 0)); }, kInvalid,
         "empty"},
        {"UnknownParameter", [](I& r) { (*r.mutable_parameters())["beams"].set_int64_param(2); },
         kInvalid, "beams"},
        {"ParameterOfWrongType",
         [](I& r) { (*r.mutable_parameters())["max_tokens"].set_string_param("many"); }, kInvalid,
         "max_tokens"},
        {"NegativeTemperature",
         [](I& r) { (*r.mutable_parameters())["temperature"].set_double_param(-1); }, kInvalid,
         "temperature"},
        {"ZeroTopP", [](I& r) { (*r.mutable_parameters())["top_p"].set_double_param(0); }, kInvalid,
         "top_p"},
        {"UnknownOutput", [](I& r) { r.add_outputs()->set_name("logits"); }, kInvalid, "logits"},
    }),
    CaseName<I>);

}  // namespace
}  // namespace evaserve

#include "server/rpc/infer_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Framed(const std::vector<std::string>& elements) {
  std::string raw;
  for (const std::string& element : elements) {
    const auto length = static_cast<uint32_t>(element.size());
    raw.append(reinterpret_cast<const char*>(&length), sizeof(length));
    raw += element;
  }
  return raw;
}

ModelInferRequest RequestOf(int64_t size) {
  ModelInferRequest request;
  request.set_model_name("m");
  auto* input = request.add_inputs();
  input->set_name("text_input");
  input->set_datatype("BYTES");
  input->add_shape(size);
  return request;
}

ModelInferRequest RawRequest(const std::vector<std::string>& elements) {
  ModelInferRequest request = RequestOf(static_cast<int64_t>(elements.size()));
  request.add_raw_input_contents(Framed(elements));
  return request;
}

ModelInferRequest TypedRequest(const std::vector<std::string>& elements) {
  ModelInferRequest request = RequestOf(static_cast<int64_t>(elements.size()));
  for (const std::string& element : elements) {
    request.mutable_inputs(0)->mutable_contents()->add_bytes_contents(element);
  }
  return request;
}

TEST(InferCodecTest, TakesRawContents) {
  const std::string binary("\0\xff\n", 3);
  const ModelInferRequest request = RawRequest({"a", "two words", binary});

  const auto elements = DecodeTextInput(request);

  ASSERT_TRUE(elements.ok()) << elements.status();
  EXPECT_THAT(*elements, ElementsAre("a", "two words", binary));
}

TEST(InferCodecTest, TakesTypedContents) {
  const ModelInferRequest request = TypedRequest({"a", "b"});

  const auto elements = DecodeTextInput(request);

  ASSERT_TRUE(elements.ok()) << elements.status();
  EXPECT_THAT(*elements, ElementsAre("a", "b"));
}

TEST(InferCodecTest, SharedMemoryIsNotSupported) {
  ModelInferRequest request = RawRequest({"ab"});
  request.clear_raw_input_contents();
  (*request.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("x");

  EXPECT_EQ(
      DecodeTextInput(request).status(),
      absl::UnimplementedError("text_input: got parameter 'shared_memory_region', but tensors "
                               "come in messages here, not in shared memory"));
}

struct BadInput {
  const char* name;
  std::function<void(ModelInferRequest&)> spoil;  // a good raw request of "ab" and "c"
  const char* message;
};

class BadInputTest : public ::testing::TestWithParam<BadInput> {};

TEST_P(BadInputTest, IsRefusedByNameValueAndWhatIsAllowed) {
  ModelInferRequest request = RawRequest({"ab", "c"});
  GetParam().spoil(request);

  const absl::Status status = DecodeTextInput(request).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

void SetShape(ModelInferRequest& request, const std::vector<int64_t>& shape) {
  auto* to = request.mutable_inputs(0)->mutable_shape();
  to->Clear();
  to->Add(shape.begin(), shape.end());
}

void UseTyped(ModelInferRequest& request, const std::vector<std::string>& elements) {
  request = TypedRequest(elements);
  SetShape(request, {2});
}

const BadInput kBadInputs[] = {
    {"NoInput", [](ModelInferRequest& r) { r.clear_inputs(); },
     "inputs: got none, allowed is text_input"},
    {"WrongName", [](ModelInferRequest& r) { r.mutable_inputs(0)->set_name("prompt"); },
     "inputs: got 'prompt', allowed is text_input"},
    {"Twice", [](ModelInferRequest& r) { *r.add_inputs() = r.inputs(0); },
     "inputs: got text_input 2 times"},
    {"WrongDatatype", [](ModelInferRequest& r) { r.mutable_inputs(0)->set_datatype("FP32"); },
     "text_input: got datatype FP32, allowed is BYTES"},
    {"NoShape", [](ModelInferRequest& r) { SetShape(r, {}); }, "text_input: got shape []"},
    {"TwoDimensions",
     [](ModelInferRequest& r) {
       SetShape(r, {1, 2});
     },
     "text_input: got shape [1,2], allowed is [n]"},
    {"EmptyBatch", [](ModelInferRequest& r) { SetShape(r, {0}); }, "text_input: got shape [0]"},
    {"NegativeBatch", [](ModelInferRequest& r) { SetShape(r, {-1}); },
     "text_input: got shape [-1]"},
    {"HugeBatch", [](ModelInferRequest& r) { SetShape(r, {int64_t{1} << 62}); },
     "text_input: got shape [4611686018427387904]"},
    {"MoreElementsThanShape", [](ModelInferRequest& r) { SetShape(r, {1}); },
     "text_input: raw contents have 5 bytes after the 1 elements"},
    {"FewerElementsThanShape", [](ModelInferRequest& r) { SetShape(r, {3}); },
     "text_input: raw contents of 11 bytes end before element 2 of 3"},
    {"CutInLength", [](ModelInferRequest& r) { r.mutable_raw_input_contents(0)->resize(8); },
     "text_input: raw contents of 8 bytes end before element 1"},
    {"CutInElement", [](ModelInferRequest& r) { r.mutable_raw_input_contents(0)->resize(10); },
     "text_input: element 1 has length 1, the raw contents have 0 bytes left"},
    {"LengthPastTheEnd",
     [](ModelInferRequest& r) { std::memset(r.mutable_raw_input_contents(0)->data(), 0xff, 4); },
     "text_input: element 0 has length 4294967295"},
    {"EmptyRaw", [](ModelInferRequest& r) { r.mutable_raw_input_contents(0)->clear(); },
     "text_input: raw contents of 0 bytes end before element 0"},
    {"TwoRawEntries", [](ModelInferRequest& r) { r.add_raw_input_contents("x"); },
     "raw_input_contents: got 2 entries, allowed is 1"},
    {"RawAndTyped",
     [](ModelInferRequest& r) { r.mutable_inputs(0)->mutable_contents()->add_int_contents(1); },
     "contents field must not be specified when using raw_input_contents for 'text_input' for "
     "model 'm'"},
    {"NoContents", [](ModelInferRequest& r) { r.clear_raw_input_contents(); },
     "text_input: got 0 elements in bytes_contents, the shape has 2"},
    {"TypedCount", [](ModelInferRequest& r) { UseTyped(r, {"a"}); },
     "text_input: got 1 elements in bytes_contents, the shape has 2"},
    {"TypedOfAnotherType",
     [](ModelInferRequest& r) {
       UseTyped(r, {"a", "b"});
       r.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
     },
     "text_input: got contents of another datatype, allowed is bytes_contents"},
    {"EmptyElement",
     [](ModelInferRequest& r) {
       r = RawRequest({"a", ""});
     },
     "text_input: element 1 is empty, allowed is at least 1 byte"},
    {"UnknownParameter",
     [](ModelInferRequest& r) {
       (*r.mutable_inputs(0)->mutable_parameters())["codec"].set_string_param("x");
     },
     "text_input: got parameter 'codec', allowed is binary_data_size"},
    {"SizeOfOtherContents",
     [](ModelInferRequest& r) {
       (*r.mutable_inputs(0)->mutable_parameters())["binary_data_size"].set_int64_param(10);
     },
     "text_input: got parameter binary_data_size 10, its raw contents have 11 bytes"},
    {"SizeOfTypedContents",
     [](ModelInferRequest& r) {
       UseTyped(r, {"a", "b"});
       (*r.mutable_inputs(0)->mutable_parameters())["binary_data_size"].set_int64_param(2);
     },
     "text_input: got parameter binary_data_size 2, its raw contents have 0 bytes"},
    {"ContentTypeThatIsNoString",
     [](ModelInferRequest& r) {
       (*r.mutable_inputs(0)->mutable_parameters())["content_type"].set_int64_param(2);
     },
     "text_input: got parameter 'content_type'"},
};

// What clients of KServe and MLServer send of their own accord.
TEST(InferCodecTest, TakesWhatOtherClientsAdd) {
  ModelInferRequest request = RawRequest({"abc", "d"});
  auto& input = *request.mutable_inputs(0);
  input.mutable_contents();
  (*input.mutable_parameters())["binary_data_size"].set_int64_param(
      static_cast<int64_t>(request.raw_input_contents(0).size()));
  (*input.mutable_parameters())["content_type"].set_string_param("str");
  SetShape(request, {2, 1});

  const auto elements = DecodeTextInput(request);

  ASSERT_TRUE(elements.ok()) << elements.status();
  EXPECT_THAT(*elements, ElementsAre("abc", "d"));
}

INSTANTIATE_TEST_SUITE_P(All, BadInputTest, ::testing::ValuesIn(kBadInputs),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(InferCodecTest, WritesBytesWithTheirLengths) {
  ModelInferResponse response;
  const std::vector<std::string_view> elements{"ab", ""};

  AddBytesOutput("text_output", elements, response);

  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2));
  EXPECT_EQ(response.raw_output_contents(0), Framed({"ab", ""}));
}

TEST(InferCodecTest, WritesOneRawEntryForEachOutputInTheirOrder) {
  ModelInferResponse response;
  const std::vector<double> scores{1.5, -2};
  const std::vector<float> row{1, 2, 3};
  const std::vector<std::span<const float>> rows{row, row};

  AddFp64Output("log_likelihood", scores, response);
  AddFp32Output("embedding", rows, response);

  ASSERT_EQ(response.raw_output_contents_size(), 2);
  EXPECT_EQ(std::memcmp(response.raw_output_contents(0).data(), scores.data(), 16), 0);
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(2, 3));
  EXPECT_EQ(response.raw_output_contents(1).size(), 24u);
}

}  // namespace
}  // namespace evaserve

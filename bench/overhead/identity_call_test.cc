#include "bench/overhead/identity_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace evaserve {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

ModelInferRequest MakeRequest(int64_t number = 1) {
  ModelInferRequest request = MakeIdentityRequest("identity", /*elements=*/3);
  MakeDifferent(request, number);
  return request;
}

ModelInferResponse RightAnswer(const ModelInferRequest& request) {
  ModelInferResponse response;
  response.set_id(request.id());
  auto& output = *response.add_outputs();
  output.set_name("OUTPUT0");
  output.set_datatype("FP32");
  *output.mutable_shape() = request.inputs(0).shape();
  *response.mutable_raw_output_contents() = request.raw_input_contents();
  return response;
}

TEST(IdentityCallTest, RawContentsFillTheShape) {
  const ModelInferRequest request = MakeRequest();

  EXPECT_THAT(request.inputs(0).shape(), testing::ElementsAre(1, 3));
  EXPECT_EQ(request.raw_input_contents(0).size(), 3 * sizeof(float));
}

TEST(IdentityCallTest, TakesTheRightAnswer) {
  const ModelInferRequest request = MakeRequest();

  EXPECT_EQ(WhatIsWrong(request, RightAnswer(request)), "");
}

TEST(IdentityCallTest, NoticesTheAnswerToAnotherRequest) {
  ModelInferResponse response = RightAnswer(MakeRequest(2));
  EXPECT_EQ(WhatIsWrong(MakeRequest(1), response), "answers another request");

  response.set_id("1");
  EXPECT_EQ(WhatIsWrong(MakeRequest(1), response), "other elements than were sent");
}

TEST(IdentityCallTest, NoticesAnotherOutput) {
  const ModelInferRequest request = MakeRequest();
  ModelInferResponse response = RightAnswer(request);
  response.mutable_outputs(0)->set_name("OUTPUT1");
  EXPECT_EQ(WhatIsWrong(request, response), "not OUTPUT0 alone");

  response = RightAnswer(request);
  response.add_outputs();
  EXPECT_EQ(WhatIsWrong(request, response), "not OUTPUT0 alone");
}

TEST(IdentityCallTest, NoticesAnotherDatatype) {
  const ModelInferRequest request = MakeRequest();
  ModelInferResponse response = RightAnswer(request);
  response.mutable_outputs(0)->set_datatype("INT32");

  EXPECT_EQ(WhatIsWrong(request, response), "another datatype");
}

TEST(IdentityCallTest, NoticesAnotherShape) {
  const ModelInferRequest request = MakeRequest();
  ModelInferResponse response = RightAnswer(request);
  response.mutable_outputs(0)->add_shape(1);

  EXPECT_EQ(WhatIsWrong(request, response), "another shape");
}

TEST(IdentityCallTest, NoticesMissingElements) {
  const ModelInferRequest request = MakeRequest();
  ModelInferResponse response = RightAnswer(request);
  response.clear_raw_output_contents();

  EXPECT_EQ(WhatIsWrong(request, response), "other elements than were sent");
}

}  // namespace
}  // namespace evaserve

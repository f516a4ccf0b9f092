#include "client/commands/json.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

TEST(JsonTest, Utf8TextStandsAsItIs) {
  v1::GenerateResponse response;
  response.set_text("caf\xc3\xa9 \"\n");

  EXPECT_EQ(ToLine(ToJson(response)), "{\"text\":\"caf\xc3\xa9 \\\"\\n\"}\n");
}

TEST(JsonTest, OtherBytesStandInBase64) {
  v1::GenerateResponse response;
  response.set_text("\xc3");

  EXPECT_EQ(ToLine(ToJson(response)), "{\"text_base64\":\"ww==\"}\n");
}

TEST(JsonTest, ALineIsUtf8WhateverIsInIt) {
  EXPECT_EQ(ToLine({{"label", "caf\xe9"}}), "{\"label\":\"caf\xef\xbf\xbd\"}\n");
}

TEST(JsonTest, AControlTokenHasANameInsteadOfBytes) {
  v1::GenerateResponse response;
  v1::TokenLogprob& token = *response.add_tokens()->mutable_chosen();
  token.set_token(2);
  token.set_control_token("</s>");
  token.set_logprob(-0.5f);

  EXPECT_EQ(ToJson(response)["tokens"].dump(),
            R"([{"token":2,"control_token":"</s>","logprob":-0.5}])");
}

TEST(JsonTest, FinishNamesItsReasonAndStop) {
  v1::GenerateResponse response;
  response.mutable_finish()->set_reason(v1::FINISH_REASON_STOP);
  response.mutable_finish()->set_stop("\n");

  EXPECT_EQ(ToJson(response)["finish"]["reason"], "stop");
  EXPECT_EQ(ToJson(response)["finish"]["stop"], "\n");
}

TEST(JsonTest, AModelThatIsNotReadySaysWhy) {
  v1::Model model;
  model.set_name("m");
  model.set_state("UNAVAILABLE");
  model.set_reason("no weights");

  EXPECT_EQ(ToJson(model).dump(),
            R"({"name":"m","version":"","state":"UNAVAILABLE","reason":"no weights"})");
}

TEST(EscapeTest, ShowsBytesThatCannotBePrinted) { EXPECT_EQ(Escape("a\n\xff"), "a\\n\\xff"); }

}  // namespace
}  // namespace evaserve

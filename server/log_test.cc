#include "server/log.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

using Json = nlohmann::ordered_json;

TEST(LogTest, TextIsKeysAndValues) {
  const Json fields{{"id", "a1"}, {"tokens", 3}, {"ms", 1.5}};

  EXPECT_EQ(FormatEvent(LogFormat::kText, "request", fields), "request id=a1 tokens=3 ms=1.5");
}

TEST(LogTest, TextQuotesWhatWouldBeAmbiguous) {
  const Json fields{{"a", "two words"}, {"b", ""}, {"c", "x=y"}, {"d", "line\nfeed"}};

  EXPECT_EQ(FormatEvent(LogFormat::kText, "m", fields),
            R"(m a="two words" b="" c="x=y" d="line\nfeed")");
}

TEST(LogTest, NoTerminalObeysWhatStrangersSend) {
  // Escape, delete, and the escape of the C1 set, in UTF-8.
  const Json fields{{"id", "a\x1b[2J\x7f\xc2\x9b"}};

  EXPECT_EQ(FormatEvent(LogFormat::kText, "m", fields), R"(m id="a\u001b[2J\u007f\u009b")");
  EXPECT_EQ(FormatEvent(LogFormat::kJson, "m", fields),
            R"("message":"m","id":"a\u001b[2J\u007f\u009b")");
}

TEST(LogTest, JsonEscapesAndKeepsTheOrder) {
  const Json fields{{"z", "quote \" and \n"}, {"a", 1}};

  const std::string line = "{" + FormatEvent(LogFormat::kJson, "it's \"done\"", fields) + "}";

  EXPECT_EQ(line, R"({"message":"it's \"done\"","z":"quote \" and \n","a":1})");
}

TEST(LogTest, JsonStaysJsonWhateverBytesCome) {
  const Json fields{{"id", std::string("\xff\x00\xc3", 3)}};

  const std::string line = "{" + FormatEvent(LogFormat::kJson, "\xfe", fields) + "}";

  EXPECT_TRUE(Json::accept(line)) << line;
}

TEST(LogTest, JsonWithoutFieldsIsTheMessageAlone) {
  EXPECT_EQ(FormatEvent(LogFormat::kJson, "m", Json::object()), R"("message":"m")");
}

}  // namespace
}  // namespace evaserve

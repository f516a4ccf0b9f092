#include "models/io/json_file.h"

#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

std::string Repeated(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

// An object around this many lists in each other.
std::string Nested(int lists) {
  return "{\"a\": " + Repeated("[", lists) + Repeated("]", lists) + "}";
}

TEST(ParseJsonObjectTest, RefusesWhatIsNoObject) {
  EXPECT_THAT(ParseJsonObject("[1]", "file").status(), IsError(kInvalid, "not a JSON object"));
}

TEST(ParseJsonObjectTest, TellsWhereItIsNotJson) {
  const auto error = [](std::string_view text) { return ParseJsonObject(text, "file").status(); };
  EXPECT_THAT(error("{"), IsError(kInvalid, "file: not valid JSON at line 1, column 2"));
  EXPECT_THAT(error(""), IsError(kInvalid, "file: not valid JSON at line 1, column 1"));
  EXPECT_THAT(error("{\n \"a\": 1,\n \"b\" 2\n}"),
              IsError(kInvalid, "file: not valid JSON at line 3, column 6"));
  EXPECT_THAT(error("{\"a\": 1e999}"), IsError(kInvalid, "file: a number is out of range"));
}

TEST(ParseJsonObjectTest, RefusesAKeyThatComesTwice) {
  EXPECT_THAT(ParseJsonObject(R"({"a": 1, "a": 2})", "file").status(),
              IsError(kInvalid, "file: \"a\" comes twice"));
  EXPECT_TRUE(ParseJsonObject(R"({"a": {"b": 1}, "b": 2})", "file").ok());
}

TEST(ParseJsonObjectTest, TakesTimeInProportion) {
  const std::string text = "{\"a\": [" + Repeated("{},", 200'000) + "{}]}";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(ParseJsonObject(text, "file").ok());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));  // not minutes
}

TEST(ParseJsonObjectTest, TakesWhatIsNestedToTheLimit) {
  const auto json = ParseJsonObject(Nested(63), "file");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->dump(), "{\"a\":" + Repeated("[", 63) + Repeated("]", 63) + "}");
}

// To copy or to print what is nested 100,000 deep is the end of the stack.
TEST(ParseJsonObjectTest, RefusesWhatIsNestedDeeper) {
  for (const std::string& text :
       {Nested(64), Nested(100'000), Repeated("[", 100'000) + Repeated("]", 100'000),
        Repeated("{\"a\":", 65) + "1" + Repeated("}", 65)}) {
    EXPECT_THAT(ParseJsonObject(text, "file").status(), IsError(kInvalid, "file: "))
        << text.substr(0, 80);
  }
  EXPECT_THAT(ParseJsonObject(Nested(64), "file").status(),
              IsError(kInvalid, "file: nested deeper than 64"));
}

TEST(JsonExcerptTest, ShowsShortValuesWhole) {
  EXPECT_EQ(JsonExcerpt({{"a", {1, "x"}}}), R"({"a":[1,"x"]})");
}

TEST(JsonExcerptTest, CutsLongOnesAndPrintsAnyBytes) {
  EXPECT_EQ(JsonExcerpt(std::string(1000, 'x')), "\"" + std::string(63, 'x') + "...");
  EXPECT_EQ(JsonExcerpt("\xc3\xa9 \xff"), "\"\\u00e9 \\ufffd\"");
}

}  // namespace
}  // namespace evaserve

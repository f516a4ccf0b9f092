#include "models/io/json_fields.h"

#include "gtest/gtest.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

TEST(JsonFieldsTest, ReadsValuesAndDefaults) {
  const auto json = nlohmann::json::parse(
      R"({"i": 3, "n": 1e5, "b": true, "s": "x", "list": [1, 2], "one": 7, "null": null})");
  JsonFields fields(json, "file");
  EXPECT_EQ(fields.Integer("i", {}, 0, 10), 3);
  EXPECT_EQ(fields.Integer("none", 4, 0, 10), 4);
  EXPECT_EQ(fields.Integer("null", 5, 0, 10), 5);
  EXPECT_EQ(fields.Number("n", {}, 0, 1e9), 1e5);
  EXPECT_TRUE(fields.Boolean("b", false));
  EXPECT_EQ(fields.String("s", ""), "x");
  EXPECT_EQ(fields.Integers("list", {}, 0, 10), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(fields.Integers("one", {}, 0, 10), (std::vector<int64_t>{7}));
  EXPECT_FALSE(fields.Has("null"));
  EXPECT_TRUE(fields.status().ok()) << fields.status();
}

TEST(JsonFieldsTest, NamesFileKeyValueAndWhatIsAllowed) {
  const auto json = nlohmann::json::parse(R"({"i": 11})");
  JsonFields fields(json, "dir/config.json");
  fields.Integer("i", {}, 0, 10);
  EXPECT_THAT(fields.status(), IsError(kInvalid, "dir/config.json", "\"i\"", "11", "from 0 to 10"));
}

TEST(JsonFieldsTest, ShowsTheBeginningOfALongValue) {
  const nlohmann::json json = {{"i", std::string(1'000'000, 'x')}};
  JsonFields fields(json, "file");
  fields.Integer("i", {}, 0, 10);
  EXPECT_THAT(fields.status(), IsError(kInvalid, "\"i\" is \"xxx", "xxx...; allowed: a whole"));
  EXPECT_LT(fields.status().message().size(), 200u);
}

TEST(JsonFieldsTest, NamesAMissingKey) {
  const auto json = nlohmann::json::object();
  JsonFields fields(json, "file");
  fields.Integer("i", {}, 0, 10);
  EXPECT_THAT(fields.status(), IsError(kInvalid, "\"i\" is missing"));
}

TEST(JsonFieldsTest, KeepsTheFirstError) {
  const auto json = nlohmann::json::parse(R"({"a": "x", "b": "y"})");
  JsonFields fields(json, "file");
  fields.Integer("a", {}, 0, 10);
  fields.Integer("b", {}, 0, 10);
  EXPECT_THAT(fields.status(), IsError(kInvalid, "\"a\""));
}

TEST(JsonFieldsTest, RefusesWhatIsNoObject) {
  const auto json = nlohmann::json::parse("[1]");
  JsonFields fields(json, "file: attn");
  EXPECT_EQ(fields.Integer("i", 3, 0, 10), 3);
  EXPECT_FALSE(fields.Has("i"));
  fields.Integer("j", {}, 0, 10);
  EXPECT_THAT(fields.status(), IsError(kInvalid, "file: attn is [1]; allowed: an object"));
}

TEST(JsonFieldsTest, RefusesOtherTypes) {
  const auto json = nlohmann::json::parse(
      R"({"s": "3", "f": 1.5, "n": 1, "big": 18446744073709551615, "list": [1, "x"]})");
  const auto error = [&](const auto& read) {
    JsonFields fields(json, "file");
    read(fields);
    return fields.status();
  };
  using Fields = JsonFields&;
  EXPECT_THAT(error([](Fields f) { f.Integer("s", 1, 0, 9); }), IsError(kInvalid, "\"s\""));
  EXPECT_THAT(error([](Fields f) { f.Integer("f", 1, 0, 9); }), IsError(kInvalid, "1.5"));
  EXPECT_THAT(error([](Fields f) { f.Integer("big", 1, 0, 9); }), IsError(kInvalid, "\"big\""));
  EXPECT_THAT(error([](Fields f) { f.Number("s", 1, 0, 9); }), IsError(kInvalid, "\"s\""));
  EXPECT_THAT(error([](Fields f) { f.Boolean("n", true); }), IsError(kInvalid, "true or false"));
  EXPECT_THAT(error([](Fields f) { f.String("n", ""); }), IsError(kInvalid, "a string"));
  EXPECT_THAT(error([](Fields f) { f.Integers("list", {}, 0, 9); }), IsError(kInvalid, "\"list\""));
}

}  // namespace
}  // namespace evaserve

#include "server/rpc/token_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace evaserve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Of "secret" and "other", as sha256sum says.
constexpr char kSecretHash[] = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
constexpr char kOtherHash[] = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

std::string Entry(const std::string& name, const std::string& hash, const std::string& rest) {
  return name + " " + hash + " " + rest + "\n";
}

TEST(TokenListTest, AnEntryAllowsTheModelsThatItNames) {
  const auto list = TokenList::Parse(Entry("alice", kSecretHash, "a,b"));

  ASSERT_TRUE(list.ok()) << list.status();
  const Token* token = list->Find("secret");
  ASSERT_NE(token, nullptr);
  EXPECT_EQ(token->name, "alice");
  EXPECT_TRUE(token->Allows("a"));
  EXPECT_TRUE(token->Allows("b"));
  EXPECT_FALSE(token->Allows("c"));
  EXPECT_FALSE(token->Allows("a,b"));
  EXPECT_FALSE(token->allows_administration);
}

TEST(TokenListTest, AStarAllowsEveryModel) {
  const auto list = TokenList::Parse(Entry("ops", kSecretHash, "* admin"));

  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_TRUE(list->Find("secret")->Allows("anything"));
  EXPECT_TRUE(list->Find("secret")->allows_administration);
}

TEST(TokenListTest, OnlyTheTokenItselfIsFound) {
  const auto list = TokenList::Parse(Entry("a", kSecretHash, "*") + Entry("b", kOtherHash, "*"));

  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->Find("secret")->name, "a");
  EXPECT_EQ(list->Find("other")->name, "b");
  for (const char* wrong : {"", "Secret", "secret ", "secre", "secret1", kSecretHash}) {
    EXPECT_EQ(list->Find(wrong), nullptr) << wrong;
  }
}

TEST(TokenListTest, CommentsBlankLinesAndUpperCaseDigitsAreFine) {
  std::string upper = kSecretHash;
  for (char& c : upper) c = static_cast<char>(toupper(c));

  const auto list = TokenList::Parse("# tokens\r\n\n\ta\t" + upper + "   *  # of a\r\n");

  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->size(), 1u);
  EXPECT_NE(list->Find("secret"), nullptr);
}

TEST(TokenListTest, OnePersonMayHaveTwoTokens) {
  const auto list = TokenList::Parse(Entry("a", kSecretHash, "*") + Entry("a", kOtherHash, "*"));

  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->size(), 2u);
}

TEST(TokenListTest, HashesAreEqualOnlyInAllBytes) {
  const Sha256 hash = Sha256Of("secret");
  EXPECT_TRUE(EqualInConstantTime(hash, Sha256Of("secret")));
  for (size_t i = 0; i < hash.size(); ++i) {
    Sha256 other = hash;
    other[i] ^= 1;
    EXPECT_FALSE(EqualInConstantTime(hash, other)) << i;
  }
}

struct BadList {
  const char* test;
  std::string text;
  const char* line;  // that the error begins with
  const char* part;  // of the error
};

class BadTokenListTest : public ::testing::TestWithParam<BadList> {};

TEST_P(BadTokenListTest, NamesLineAndColumnAndQuotesNothing) {
  const auto list = TokenList::Parse(GetParam().text);

  EXPECT_EQ(list.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(list.status().message());
  EXPECT_EQ(message.substr(0, message.find(':')), GetParam().line) << message;
  EXPECT_THAT(message, HasSubstr(GetParam().part));
  EXPECT_THAT(message, Not(HasSubstr("hunter2")));
}

const BadList kBadLists[] = {
    {"Empty", "", "1", "token"},
    {"OnlyComments", "# nobody\n\n", "3", "token"},
    {"OneColumn", "hunter2\n", "1", "NAME SHA256 MODELS"},
    {"TwoColumns", std::string("\nalice ") + kSecretHash, "2", "NAME SHA256 MODELS"},
    {"FiveColumns", Entry("a", kSecretHash, "* admin hunter2"), "1", "5 columns"},
    {"ATokenInsteadOfItsHash", Entry("a", kSecretHash, "*") + Entry("b", "hunter2", "*"), "2",
     "sha256"},
    {"AHashThatIsTooLong", Entry("a", std::string(kSecretHash) + "0", "*"), "1", "65 characters"},
    {"AHashThatIsNone", Entry("a", std::string(64, 'g'), "*"), "1", "hexadecimal"},
    {"ALongName", Entry(std::string(65, 'n'), kSecretHash, "*"), "1", "name"},
    {"AControlCharacterInAName", Entry("a\x1b[31m", kSecretHash, "*"), "1", "name"},
    {"AnEmptyModel", Entry("a", kSecretHash, "x,,y"), "1", "models"},
    {"AStarAmongModels", Entry("a", kSecretHash, "x,*"), "1", "models"},
    {"AnUnknownRight", Entry("a", kSecretHash, "* hunter2"), "1", "admin"},
    {"TheSameHashTwice", Entry("a", kSecretHash, "x") + "\n" + Entry("b", kSecretHash, "y"), "3",
     "line 1"},
};

INSTANTIATE_TEST_SUITE_P(All, BadTokenListTest, ::testing::ValuesIn(kBadLists),
                         [](const auto& info) { return std::string(info.param.test); });

}  // namespace
}  // namespace evaserve

#include "server/rpc/request_identity.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
const std::string kSpan = "00f067aa0ba902b7";
const TraceContext kContext{.trace_id = kTrace, .span_id = kSpan};
const TraceContext kNone;

// Version 00 with other fields than usual.
std::string With(const std::string& trace, const std::string& span) {
  return "00-" + trace + "-" + span + "-01";
}

TEST(ParseTraceparentTest, TakesTheIdsWhateverTheFlagsAre) {
  EXPECT_EQ(ParseTraceparent(With(kTrace, kSpan)), kContext);
  EXPECT_EQ(ParseTraceparent("00-" + kTrace + "-" + kSpan + "-00"), kContext);
  EXPECT_EQ(ParseTraceparent("00-" + kTrace + "-" + kSpan + "-ff"), kContext);
}

TEST(ParseTraceparentTest, BlanksAroundItDoNotMatter) {
  EXPECT_EQ(ParseTraceparent(" \t" + With(kTrace, kSpan) + " "), kContext);
}

TEST(ParseTraceparentTest, ALaterVersionMayHaveMoreFields) {
  EXPECT_EQ(ParseTraceparent("cc-" + kTrace + "-" + kSpan + "-01"), kContext);
  EXPECT_EQ(ParseTraceparent("01-" + kTrace + "-" + kSpan + "-01-what-the-future-brings"),
            kContext);
  EXPECT_EQ(ParseTraceparent("01-" + kTrace + "-" + kSpan + "-01."), kNone);
  EXPECT_EQ(ParseTraceparent("01-" + kTrace + "-" + kSpan + "-01what"), kNone);
}

TEST(ParseTraceparentTest, Version00HasFourFieldsOnly) {
  EXPECT_EQ(ParseTraceparent(With(kTrace, kSpan) + "-more"), kNone);
  EXPECT_EQ(ParseTraceparent(With(kTrace, kSpan) + "-"), kNone);
}

TEST(ParseTraceparentTest, VersionFfIsForbidden) {
  EXPECT_EQ(ParseTraceparent("ff-" + kTrace + "-" + kSpan + "-01"), kNone);
}

TEST(ParseTraceparentTest, IdsOfZerosOnlyAreNone) {
  EXPECT_EQ(ParseTraceparent(With(std::string(32, '0'), kSpan)), kNone);
  EXPECT_EQ(ParseTraceparent(With(kTrace, std::string(16, '0'))), kNone);
}

TEST(ParseTraceparentTest, DigitsAreLowercaseHexadecimal) {
  EXPECT_EQ(ParseTraceparent(With("4BF92F3577B34DA6A3CE929D0E0E4736", kSpan)), kNone);
  EXPECT_EQ(ParseTraceparent(With(kTrace, "00F067AA0BA902B7")), kNone);
  EXPECT_EQ(ParseTraceparent(With(kTrace, "00g067aa0ba902b7")), kNone);
  EXPECT_EQ(ParseTraceparent("0A-" + kTrace + "-" + kSpan + "-01"), kNone);
  EXPECT_EQ(ParseTraceparent("00-" + kTrace + "-" + kSpan + "-0A"), kNone);
}

TEST(ParseTraceparentTest, FieldsHaveTheirLengthsAndDashesBetween) {
  EXPECT_EQ(ParseTraceparent(""), kNone);
  EXPECT_EQ(ParseTraceparent("00"), kNone);
  EXPECT_EQ(ParseTraceparent(With(kTrace, kSpan).substr(0, 54)), kNone);
  EXPECT_EQ(ParseTraceparent(With(kTrace + "0", kSpan.substr(1))), kNone);
  EXPECT_EQ(ParseTraceparent("000" + kTrace + "-" + kSpan + "-01"), kNone);
  EXPECT_EQ(ParseTraceparent("00-" + kTrace + "0" + kSpan + "-01"), kNone);
  EXPECT_EQ(ParseTraceparent("00-" + kTrace + "-" + kSpan + "001"), kNone);
}

}  // namespace
}  // namespace evaserve

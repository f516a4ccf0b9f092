#include "server/engine/mailbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/fake_engine.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

class MailboxTest : public ::testing::Test {
 protected:
  // With prompts of so many tokens.
  absl::Status Submit(const std::vector<int>& lengths) {
    std::vector<std::unique_ptr<ActiveRequest>> requests;
    for (int length : lengths) {
      Request request = GenerateRequest("", 1, nullptr);
      request.tokens.resize(length);
      requests.push_back(
          std::make_unique<ActiveRequest>(next_id_++, std::move(request), 1, model_, TimePoint()));
    }
    return mailbox_.Submit(std::move(requests));
  }

  const FakeModel model_;
  RequestId next_id_ = 1;
  Mailbox mailbox_{{.max_running = 4, .waiting = {.max_waiting = 2, .max_waiting_tokens = 10}}};
};

TEST_F(MailboxTest, FreePlacesAreFilledFirst) {
  mailbox_.Publish({.running = 1}, 0);
  for (int i = 0; i < 3 + 2; ++i) EXPECT_TRUE(Submit({1}).ok()) << "request " << i;

  const absl::Status status = Submit({1});

  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(mailbox_.state().waiting, 5);
}

TEST_F(MailboxTest, NoPlaceIsFreeWhileOthersWait) {
  mailbox_.Publish({.running = 1, .waiting = 1}, 0);  // pages are short
  EXPECT_TRUE(Submit({1}).ok());

  EXPECT_TRUE(absl::IsResourceExhausted(Submit({1})));
}

TEST_F(MailboxTest, WhatHasNotBeenTakenYetFindsThePlacesThatHaveBecomeFree) {
  mailbox_.Publish({.running = 4}, 0);
  ASSERT_TRUE(Submit({1, 1}).ok());
  ASSERT_TRUE(absl::IsResourceExhausted(Submit({1})));

  mailbox_.Publish({.running = 3}, 1);

  EXPECT_TRUE(Submit({1}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Submit({1})));
}

TEST_F(MailboxTest, WhatHasBeenTakenCountsUntilTheEngineTellsWhereItIs) {
  mailbox_.Publish({.running = 4}, 0);
  ASSERT_TRUE(Submit({1, 1}).ok());

  EXPECT_EQ(mailbox_.Take(TimePoint::min()).submitted.size(), 2u);

  EXPECT_TRUE(absl::IsResourceExhausted(Submit({1})));
  EXPECT_EQ(mailbox_.state().waiting, 2);
  mailbox_.Publish({.running = 4, .waiting = 1}, 1);
  EXPECT_TRUE(Submit({1}).ok());
}

TEST_F(MailboxTest, TokensThatFindAPlaceDoNotWait) {
  mailbox_.Publish({.running = 1}, 0);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Submit({20}).ok()) << "request " << i;
  EXPECT_TRUE(Submit({6}).ok());

  const absl::Status status = Submit({5});

  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("6 tokens are waiting, 5 more"));
  EXPECT_TRUE(Submit({4}).ok());
}

TEST_F(MailboxTest, AGroupFillsPlacesAndWaitsWithItsRest) {
  mailbox_.Publish({.running = 1}, 0);
  EXPECT_TRUE(absl::IsInvalidArgument(Submit({1, 1, 1, 1, 1, 1, 1}))) << "can never be taken";
  EXPECT_TRUE(absl::IsResourceExhausted(Submit({1, 1, 1, 1, 1, 1})));

  EXPECT_TRUE(Submit({1, 1, 1, 1}).ok());

  EXPECT_TRUE(Submit({1}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Submit({1})));
}

}  // namespace
}  // namespace evaserve

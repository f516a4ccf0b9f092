#include "server/repository/warm_up.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/fake_model.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using Piece = FakeModelControl::Piece;

auto OneStep(int64_t length, int num_tokens) {
  return std::vector<Piece>{{.length = length, .num_tokens = num_tokens}};
}

TEST(WarmUpTest, ReadsATextInWindowsAndGeneratesAFewTokens) {
  FakeModel model({.window = 16});

  ASSERT_TRUE(WarmUp(model, 20).ok());

  EXPECT_THAT(model.control()->steps(), ElementsAre(OneStep(0, 16), OneStep(16, 4), OneStep(20, 1),
                                                    OneStep(21, 1), OneStep(22, 1)));
  EXPECT_EQ(model.state_pool().free_pages, model.state_pool().total_pages);
}

TEST(WarmUpTest, StaysWithinTheModelsLength) {
  FakeModel model({.window = 8, .chunk = 4, .max_seq_len = 8});
  EXPECT_TRUE(WarmUp(model, 1000).ok());
}

TEST(WarmUpTest, SaysWhatFails) {
  FakeModel model;
  model.control()->FailIf([](auto) { return absl::InternalError("broken"); });
  EXPECT_TRUE(absl::IsInternal(WarmUp(model, 4)));
}

}  // namespace
}  // namespace evaserve

#include "server/rpc/handle_slot.h"

#include <gtest/gtest.h>

namespace evaserve {
namespace {

class CountingHandle : public RequestHandle {
 public:
  void Cancel() override { ++num_cancelled; }
  void Resume() override { ++num_resumed; }

  int num_cancelled = 0;
  int num_resumed = 0;
};

TEST(HandleSlotTest, CancelsAndResumesWhatItHolds) {
  const auto handle = std::make_shared<CountingHandle>();
  HandleSlot slot;
  slot.Set(handle);
  EXPECT_EQ(handle->num_cancelled, 0);

  slot.Resume();
  slot.Cancel();

  EXPECT_EQ(handle->num_resumed, 1);
  EXPECT_EQ(handle->num_cancelled, 1);
}

TEST(HandleSlotTest, ACancelThatComesFirstIsNotLost) {
  const auto handle = std::make_shared<CountingHandle>();
  HandleSlot slot;

  slot.Cancel();
  slot.Set(handle);

  EXPECT_EQ(handle->num_cancelled, 1);
}

TEST(HandleSlotTest, AResumeThatComesFirstIsNotLost) {
  const auto handle = std::make_shared<CountingHandle>();
  HandleSlot slot;

  slot.Resume();
  slot.Set(handle);

  EXPECT_EQ(handle->num_resumed, 1);
}

}  // namespace
}  // namespace evaserve

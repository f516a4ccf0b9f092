#include "models/eva_translation/slot_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

constexpr int kRow = 4096;  // floats: 16 KiB

std::unique_ptr<SlotMemory> MakeMemory() {
  auto memory = SlotMemory::Create({.num_slots = 100, .num_layers = 3, .row_floats = kRow});
  EXPECT_TRUE(memory.ok()) << memory.status();
  return *std::move(memory);
}

float* Row(const SlotMemory& memory, int layer, int slot) {
  return memory.layer(layer) + int64_t{slot} * kRow;
}

TEST(SlotMemoryTest, EverySlotHasARowInEveryLayer) {
  const auto memory = MakeMemory();
  for (int i = 0; i < 300; ++i) std::fill_n(Row(*memory, i % 3, i / 3), kRow, float(i));
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(Row(*memory, i % 3, i / 3)[0], float(i));
    EXPECT_EQ(Row(*memory, i % 3, i / 3)[kRow - 1], float(i));
  }
}

TEST(SlotMemoryTest, TellsWhatIsUsed) {
  const auto memory = MakeMemory();
  EXPECT_EQ(memory->state().page_bytes, 3 * kRow * 4);
  EXPECT_EQ(memory->state().total_pages, 100);
  EXPECT_EQ(memory->state().free_pages, 100);
  memory->Use(40);
  memory->Use(7);
  EXPECT_EQ(memory->end(), 40);
  EXPECT_EQ(memory->state().free_pages, 60);
  memory->GiveBack(50);
  EXPECT_EQ(memory->end(), 40);
  memory->GiveBack(10);
  EXPECT_EQ(memory->end(), 10);
  EXPECT_EQ(memory->state().free_pages, 90);
}

// Memory that the system has taken back reads as zeros.
TEST(SlotMemoryTest, WhatIsGivenBackIsGoneAndTheRestStays) {
  const auto memory = MakeMemory();
  memory->Use(100);
  for (int i = 0; i < 300; ++i) std::fill_n(Row(*memory, i % 3, i / 3), kRow, 1.f);
  memory->GiveBack(30);
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(Row(*memory, i % 3, i / 3)[kRow / 2], i / 3 < 30 ? 1.f : 0.f) << i;
  }
  memory->Use(31);
  Row(*memory, 1, 30)[0] = 2.f;
  EXPECT_EQ(Row(*memory, 1, 30)[0], 2.f);
}

TEST(SlotMemoryTest, MoreThanThereIsIsRefused) {
  const auto memory =
      SlotMemory::Create({.num_slots = 1 << 15, .num_layers = 1 << 10, .row_floats = 1 << 30});
  EXPECT_THAT(memory.status(), IsError(absl::StatusCode::kResourceExhausted, "bytes"));
}

}  // namespace
}  // namespace evaserve

#include "kernels/store_slots.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/rope_table.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"

namespace evaserve {
namespace {

// Seven tokens of two sequences, the second one a tree, across a page boundary.
struct Problem {
  Problem(int head_dim, DType dtype)
      : shape{2, head_dim, 64, 4, dtype, 1.f},
        rope({.head_dim = head_dim, .num_positions = 50}),
        pages(shape, 5, 1),
        lists{{pages.Take(), pages.Take()}, {pages.Take()}},
        qkv(RandomVector(size_t(7) * 3 * shape.width(), 1.f, 4)) {
    sequences = {{0, 4, lists[0], 62, 10, nullptr}, {4, 3, lists[1], 5, 20, offsets}};
    params.pages = pages.store();
    params.rope = rope.table();
    params.q = qkv.data();
    params.k = params.q + shape.width();
    params.v = params.k + shape.width();
    params.token_stride = 3 * shape.width();
    params.sequences = sequences;
  }
  Problem(const Problem&) = delete;

  // Every element of every slot, as float32.
  std::vector<float> Stored(bool keys) const {
    const PageStore store = pages.store();
    std::vector<float> all;
    for (int page = 0; page < store.num_pages; ++page) {
      for (int head = 0; head < shape.num_heads; ++head) {
        for (int slot = 0; slot < kPageSlots; ++slot) {
          const int dims = keys ? shape.head_dim : store.layout.padded_head_dim();
          for (int d = 0; d < dims; ++d) {
            all.push_back(keys ? LoadElement(store.keys(page, head), shape.dtype,
                                             store.layout.key_index(slot, d))
                               : LoadElement(store.values(page, head), shape.dtype,
                                             store.layout.value_index(slot, d)));
          }
        }
      }
    }
    return all;
  }

  std::string Error() const { return std::string(Validate(params).message()); }

  EvaShape shape;
  RopeTables rope;
  PagePool pages;
  std::vector<int32_t> lists[2];
  const int32_t offsets[3] = {0, 1, 1};
  std::vector<float> qkv;
  std::vector<StoreSequence> sequences;
  StoreSlotsParams params;
};

// Written in both or NaN (untouched) in both, and close.
void ExpectSame(const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::isnan(got[i]), std::isnan(want[i])) << i;
    if (std::isnan(want[i])) continue;
    ASSERT_NEAR(got[i], want[i], tolerance * (1 + std::abs(want[i]))) << i;
  }
}

TEST(StoreSlotsTest, CpuAgreesWithTheReferenceAndTouchesNoOtherSlot) {
  SerialWorkerPool workers;
  const std::string usual = GetCpuKernels().name;
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (!ForceCpuKernels(isa)) continue;
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const int head_dim : {8, 24, 64, 128}) {
        SCOPED_TRACE(testing::Message() << isa << " " << Name(dtype) << " " << head_dim);
        Problem cpu(head_dim, dtype), reference(head_dim, dtype);
        ASSERT_TRUE(StoreSlotsCpu(cpu.params, workers).ok());
        ASSERT_TRUE(StoreSlotsReference(reference.params).ok());
        // A float32 rounding may fall on the other side of a bfloat16 tie.
        const double tolerance = dtype == DType::kFloat32 ? 1e-6 : 8e-3;
        ExpectSame(cpu.Stored(true), reference.Stored(true), tolerance);
        ExpectSame(cpu.Stored(false), reference.Stored(false), tolerance);
        ExpectSame(cpu.qkv, reference.qkv, 1e-6);
      }
    }
  }
  ForceCpuKernels(usual);
}

TEST(StoreSlotsTest, NamesAPositionBeyondTheTable) {
  Problem p(8, DType::kFloat32);
  p.sequences[0].position_begin = 47;
  EXPECT_EQ(p.Error(), "position is 50, must be in [0, 50)");
}

TEST(StoreSlotsTest, NamesAPageOutOfRange) {
  Problem p(8, DType::kFloat32);
  p.lists[0][1] = -1;
  EXPECT_EQ(p.Error(), "window_pages[1] is -1, must be in [0, 5)");
}

TEST(StoreSlotsTest, NamesSlotsWithoutAPage) {
  Problem p(8, DType::kFloat32);
  p.sequences[1].slot_begin = 62;
  EXPECT_EQ(p.Error(), "window_pages: 65 slots in 1 pages of 64");
}

TEST(StoreSlotsTest, NamesAStrideThatIsTooShort) {
  Problem p(8, DType::kFloat32);
  p.params.token_stride = 15;
  EXPECT_EQ(p.Error(), "token_stride is 15, must be at least 16");
}

}  // namespace
}  // namespace evaserve

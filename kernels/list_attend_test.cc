#include "kernels/list_attend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/testing/eva_sequence.h"
#include "kernels/testing/threaded_worker_pool.h"

namespace evaserve {
namespace {

using testing::HasSubstr;

constexpr int kNumHeads = 3, kNumRows = 200, kGap = 5;

// Float32 sums of some hundred products of unit size, against float64; with bfloat16 queries, keys,
// values and weights are rounded, 2^-9 relative each.
double ToleranceOf(DType dtype) { return dtype == DType::kFloat32 ? 1e-5 : 5e-2; }

std::vector<float> Random(size_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(generator);
  return values;
}

struct Item {
  int num_queries = 1;
  std::vector<int32_t> keys;
};

std::vector<int32_t> RandomKeys(int count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<int32_t> keys(count);
  for (int32_t& key : keys) key = static_cast<int32_t>(generator() % kNumRows);
  return keys;
}

// Around whole vectors and tiles.
std::vector<Item> Grid() {
  std::vector<Item> items;
  for (const int num_keys : {1, 2, 7, 16, 17, 33, 64, 65, 150}) {
    for (const int num_queries : {1, 5, 6, 7, 20}) {
      items.push_back({num_queries, RandomKeys(num_keys, items.size())});
    }
  }
  return items;
}

struct ListCase {
  std::string isa;
  DType dtype = DType::kFloat32;
};

void PrintTo(const ListCase& c, std::ostream* os) { *os << c.isa << " " << Name(c.dtype); }

class ListAttendTest : public testing::TestWithParam<ListCase> {
 protected:
  ListAttendTest() { ForceCpuKernels(GetParam().isa); }
  ~ListAttendTest() override { ForceCpuKernels(usual_); }

  // Queries, keys and values of `seed`. On the pool, or by the reference if it is null.
  std::vector<float> Run(std::span<const Item> grid, int head_dim, WorkerPool* pool,
                         uint32_t seed = 1) const {
    std::vector<ListAttendItem> items;
    int num_queries = 0;
    for (const Item& item : grid) {
      items.push_back({num_queries, item.num_queries, item.keys});
      num_queries += item.num_queries;
    }
    const int64_t width = int64_t{kNumHeads} * head_dim;
    const std::vector<float> q = Random(num_queries * (width + kGap), seed);
    const std::vector<float> kv = Random(kNumRows * (2 * width + kGap), seed + 1);
    std::vector<float> out(num_queries * width);
    const ListAttendParams params = {.items = items,
                                     .num_heads = kNumHeads,
                                     .head_dim = head_dim,
                                     .scale = 1.f / std::sqrt(static_cast<float>(head_dim)),
                                     .dtype = GetParam().dtype,
                                     .num_queries = num_queries,
                                     .q = q.data(),
                                     .q_stride = width + kGap,
                                     .num_keys = kNumRows,
                                     .k = kv.data(),
                                     .v = kv.data() + width,
                                     .kv_stride = 2 * width + kGap,
                                     .out = out.data(),
                                     .out_stride = width};
    const absl::Status status =
        pool == nullptr ? ListAttendReference(params) : ListAttendCpu(params, *pool);
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }

  SerialWorkerPool workers_;

 private:
  const std::string usual_ = GetCpuKernels().name;
};

std::vector<ListCase> ListCases() {
  std::vector<ListCase> cases;
  for (const char* isa : {"baseline", "avx2", "avx512bf16"}) {
    if (FindCpuKernels(isa) == nullptr) continue;
    cases.push_back({isa, DType::kFloat32});
    cases.push_back({isa, DType::kBFloat16});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, ListAttendTest, testing::ValuesIn(ListCases()), [](const auto& info) {
  return info.param.isa + "_" + std::string(Name(info.param.dtype));
});

TEST_P(ListAttendTest, AgreesWithTheReferenceOnEveryShape) {
  const std::vector<Item> grid = Grid();
  for (const int head_dim : {4, 12, 32, 64, 128}) {
    SCOPED_TRACE(head_dim);
    EXPECT_LE(MaxError(Run(grid, head_dim, &workers_), Run(grid, head_dim, nullptr)),
              ToleranceOf(GetParam().dtype));
  }
}

TEST_P(ListAttendTest, AQueryIsWhatItIsAlone) {
  const std::vector<Item> grid = Grid();
  std::vector<Item> one_by_one;
  for (const Item& item : grid)
    one_by_one.insert(one_by_one.end(), item.num_queries, {1, item.keys});
  ThreadedWorkerPool threads(3);
  const std::vector<float> together = Run(grid, 64, &workers_);
  EXPECT_EQ(together, Run(one_by_one, 64, &workers_));
  EXPECT_EQ(together, Run(grid, 64, &threads));
  EXPECT_EQ(threads.num_runs(), 1);
}

TEST_P(ListAttendTest, OneKeyGivesItsValue) {
  const std::vector<Item> one = {{2, {7}}}, thrice = {{2, {7, 7, 7}}};
  EXPECT_LE(MaxError(Run(one, 32, &workers_), Run(thrice, 32, &workers_)), 1e-6);
}

TEST(ListAttendValidateTest, NamesFieldsOutOfRange) {
  const std::vector<int32_t> keys = {0, 3};
  ListAttendItem item = {.query_begin = 1, .num_queries = 2, .keys = keys};
  const ListAttendParams good = {.items = {&item, 1},
                                 .num_heads = 2,
                                 .head_dim = 8,
                                 .num_queries = 3,
                                 .q_stride = 16,
                                 .num_keys = 4,
                                 .kv_stride = 16,
                                 .out_stride = 16};
  EXPECT_TRUE(Validate(good).ok());
  const auto error = [&](auto change) {
    ListAttendParams wrong = good;
    change(wrong);
    return std::string(Validate(wrong).message());
  };
  EXPECT_THAT(error([](auto& w) { w.head_dim = 6; }), HasSubstr("head_dim is 6"));
  EXPECT_THAT(error([](auto& w) { w.dtype = DType::kFloat16; }), HasSubstr("dtype is float16"));
  EXPECT_EQ(error([](auto& w) { w.kv_stride = 15; }), "kv_stride is 15, must be at least 16");
  EXPECT_EQ(error([](auto& w) { w.num_queries = 2; }),
            "items[0]: 2 queries from 1 on, must be in [0, 2)");
  EXPECT_EQ(error([](auto& w) { w.num_keys = 3; }), "items[0]: a key is 3, must be in [0, 3)");
  item.keys = {};
  EXPECT_EQ(error([](auto&) {}), "items[0]: keys is empty, must have at least 1");
}

}  // namespace
}  // namespace evaserve

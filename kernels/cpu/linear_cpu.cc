#include <algorithm>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/linear.h"

namespace evaserve {
namespace {

static_assert(kLinearBlock == kTileColumns, "a weight block is one panel of the register tile");

// Rows that pass over a weight block while it is in the cache.
constexpr int kRowsPerPass = 96;

struct Input {
  const void* x = nullptr;
  int64_t stride = 0;  // units
};

int64_t Units(const PackedWeight& weight) {
  const int64_t pack = 4 / SizeOf(weight.dtype());
  return (weight.in_features() + pack - 1) / pack;
}

// x as the kernel reads it: as it is, or rounded to bfloat16 in memory that all workers share.
Input PrepareInput(const LinearParams& p, const CpuKernels& kernels, WorkerPool& pool) {
  if (p.weight->dtype() == DType::kFloat32) return {p.x, p.x_stride};
  const int64_t units = Units(*p.weight);
  float* rounded = static_cast<float*>(pool.Scratch(-1, p.rows * units * 4));
  ParallelFor(pool, p.rows, units, [&](int begin, int end, int) {
    for (int row = begin; row < end; ++row) {
      kernels.to_bfloat16(p.x + row * p.x_stride, static_cast<int>(p.weight->in_features()),
                          rounded + row * units);
    }
  });
  return {rounded, units};
}

// All rows from row_begin on, at most kRowsPerPass, times one weight block.
LinearTile MakeTile(const LinearParams& p, const Input& input, int64_t block, int row_begin) {
  const int64_t units = Units(*p.weight);
  const int64_t first = block * kLinearBlock;
  const int64_t end = p.out_end == 0 ? p.weight->out_features() : p.out_end;
  LinearTile tile;
  tile.x = static_cast<const float*>(input.x) + row_begin * input.stride;
  tile.x_stride = input.stride;
  tile.weight = static_cast<const float*>(p.weight->data()) + first * units;
  tile.out_begin = static_cast<int>(std::max(p.out_begin - first, int64_t{0}));
  tile.out_end = static_cast<int>(std::min(end - first, int64_t{kLinearBlock}));
  tile.y = p.y + row_begin * p.y_stride + first + tile.out_begin - p.out_begin;
  tile.y_stride = p.y_stride;
  tile.num_rows = std::min(kRowsPerPass, p.rows - row_begin);
  tile.num_units = static_cast<int>(units);
  tile.is_bfloat16 = p.weight->dtype() == DType::kBFloat16;
  tile.accumulate = p.accumulate;
  tile.bias = p.bias == nullptr ? nullptr : p.bias + first + tile.out_begin;
  return tile;
}

}  // namespace

void LinearCpu(const LinearParams& params, WorkerPool& pool) {
  const PackedWeight& weight = *params.weight;
  const int64_t end = params.out_end == 0 ? weight.out_features() : params.out_end;
  if (params.rows == 0 || end <= params.out_begin) return;
  const CpuKernels& kernels = GetCpuKernels();
  const Input input = PrepareInput(params, kernels, pool);

  const int first_block = static_cast<int>(params.out_begin / kLinearBlock);
  const int num_blocks = static_cast<int>((end - 1) / kLinearBlock) + 1 - first_block;
  const int num_passes = (params.rows + kRowsPerPass - 1) / kRowsPerPass;
  const int64_t rows_per_pass = std::min(params.rows, kRowsPerPass);
  ParallelFor(pool, num_blocks * num_passes,
              std::max<int64_t>(rows_per_pass, 4) * kLinearBlock * weight.in_features(),
              [&](int begin, int end, int) {
                for (int i = begin; i < end; ++i) {
                  const int row_begin = i / num_blocks * kRowsPerPass;
                  kernels.linear(MakeTile(params, input, first_block + i % num_blocks, row_begin));
                }
              });
}

}  // namespace evaserve

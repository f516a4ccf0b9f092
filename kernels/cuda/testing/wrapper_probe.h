#pragma once

// Kernels that do nothing but call wrappers of ptx.h: operands come from device memory, and what
// the wrapper makes of them goes back there. What that must be: wrapper_test.cc and its neighbours.

#include <cstdint>
#include <functional>
#include <string>

#include "kernels/cuda/half.h"

namespace evaserve {

struct ProbeArgs {
  const void* in[3] = {};  // device memory, as is out
  void* out = nullptr;
  int count = 0;  // the probe sets it
};

// Starts a probe's kernel; empty, or what went wrong.
using Probe = std::function<std::string(const ProbeArgs& args, void* stream)>;

// --- For any device. Below, in[i] and out say what lies there.

// in[0..2]: float a, b, c[count]. out: float[5][count], namely Exp2(a), Log2(a), ReciprocalSqrt(a),
// Fma(a, b, c) and FloatFromBits(the bits of a).
Probe NumbersProbe(int count);
// in[0]: float[count][2], low and high. out: uint32_t[count].
Probe PackProbe(DType type, int count);
// in[0]: uint32_t[count]. out: float[count][2], low and high.
Probe UnpackProbe(DType type, int count);

// out: int[num_blocks][block_size][3], namely BlockIndex, ThreadIndex and NumBlocks.
Probe IndicesProbe(int num_blocks, int block_size);
// in[0]: float[32]. out: float[32][32], by mask and lane.
Probe ShuffleProbe();
// in[0]: int[4], one for each warp. out: int[128], what each thread of it gets.
Probe UniformProbe();
// Thread t leaves t + 1 in shared memory. out: int[2][128], what it finds there after SyncWarp from
// lane (lane + 1) % 32 of its warp, and after SyncBlock from thread (t + 33) % 128.
Probe SyncProbe();
// A warp leaves 32 * round + lane in shared memory, another takes what lane 31 - lane has left;
// both arrive at a barrier at which the other waits. out: int[rounds][32].
Probe NamedBarrierProbe(int rounds);
// Every block adds 3 to a counter, and the last one to come adds up what all threads have stored.
// out, zeros before: int[2 + 129 * num_blocks], namely the counter, the sum, what the counter was
// for each block, and what thread t of block b has stored, 128 * b + t.
Probe LastBlockProbe(int num_blocks);

// in[0]: uint16_t[2048], shared memory; in[1]: uint32_t[32], the byte of it that each lane names.
// out: uint32_t[32][4].
Probe LoadMatricesProbe(bool transposed);
// in[0..2]: uint32_t a[32][4], uint32_t b[32][2], float c[32][4]. out: float[32][4].
Probe MmaProbe(DType type);
// Two groups of copies, of a piece of 16 bytes by each thread. in[0]: uint32_t[2][128][4]; in[1]:
// int[2][128], whether a piece is valid. out: uint32_t[2][128][4], each group as it lies in shared
// memory when it alone must be there.
Probe CopyAsyncProbe();

// --- For sm_90a.

// All threads store, arrive, wait, and take what their neighbour has stored. out:
// int[rounds][128], which is 1000 * round + (thread + 1) % 128.
Probe MbarrierProbe(int rounds);
// in[0]: char[2 * bytes]. out: the same, copied in two rounds through the same shared memory, each
// in a piece of 16 bytes and one of the rest.
Probe CopyBulkProbe(int bytes);
struct BoxShape {
  int num_columns = 0, num_rows = 0;
  int row_stride = 0;  // elements
  int box_columns = 0, box_rows = 0;
  int column = 0, row = 0;  // where the box begins
};
// in[0]: uint16_t[num_rows][row_stride]. out: uint16_t[box_rows][box_columns], as it lies in shared
// memory.
Probe CopyBoxProbe(const BoxShape& box);

// Products as the wide kernel makes them, of 64 queries, 128 keys and 128 values. A matrix lies in
// shared memory as wgmma reads it (wrapper_wgmma_test.cc). d: float[128][columns / 2], what each
// thread holds of the sums.

// in[0]: queries; in[1]: keys; in[2]: d before. out: d, 128 columns.
Probe WgmmaSharedProbe(DType type, int head_dim);
// in[0]: uint32_t[128][8][4], what each thread holds of the weights, by 16 values; in[1]: values;
// in[2]: d before. out: d, head_dim columns.
Probe WgmmaRegistersProbe(DType type, int head_dim);
// Both products at once by two warpgroups that got registers of a third. in[0]: queries, keys and
// values in one piece; in[1]: the weights as above. out, for each of the two: d of the keys, waited
// for first, then d of the values.
Probe WgmmaPairProbe(DType type, int head_dim);

}  // namespace evaserve

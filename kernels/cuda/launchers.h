#pragma once

// One function per kernel. They check nothing; gpu.h does. All return an empty string, or what went
// wrong, and return before the kernel has run.

#include <string>

#include "kernels/cuda/attend_args.h"
#include "kernels/cuda/fused_args.h"
#include "kernels/cuda/store_chunks_args.h"
#include "kernels/cuda/window_args.h"

namespace evaserve {

// What a kernel is compiled for.
struct GpuShape {
  DType type = DType::kBFloat16;
  int head_dim = 0;
};

// Queries in a tile of each attention kernel.
inline constexpr int kWideTileRows = 128;
inline constexpr int kPortableTileRows = 64;
inline constexpr int kNarrowTileRows = 16;
inline constexpr int kFloatTileRows = 4;
inline constexpr int kWindowTileRows = 64;  // at most; a multiple of 16

// Bytes of zeros that LaunchAttendWide() needs.
inline constexpr int kZeroBytes = kCudaPageSlots * 128;

// For sm_90a. `num_tokens` is the number of rows of args.q, `zeros` kZeroBytes of zeros.
struct WideLaunch {
  int64_t num_tokens = 0;
  const void* zeros = nullptr;
  int num_multiprocessors = 1;
};
std::string LaunchAttendWide(GpuShape shape, const CudaAttendArgs& args, const WideLaunch& launch,
                             void* stream);

std::string LaunchAttendPortable(GpuShape shape, const CudaAttendArgs& args, void* stream);

// `num_blocks` blocks whatever the batch is.
std::string LaunchAttendNarrow(GpuShape shape, const NarrowAttendArgs& args, int num_blocks,
                               void* stream);
// Of the current device; 1 for a shape that there is no kernel for.
int NarrowBlocksPerMultiprocessor(GpuShape shape);
// Floats of a partial result of the narrow kernel.
int NarrowPartialFloats(int head_dim);

// For float32, which the other attention kernels refuse.
std::string LaunchAttendFloat(int head_dim, const CudaAttendArgs& args, void* stream);

// head_dim is a multiple of 8 in [8, 128]; tiles of up to kWindowTileRows, in float32 of
// kFloatTileRows.
std::string LaunchWindowAttend(DType type, const WindowAttendArgs& args, void* stream);
std::string LaunchLandmarks(DType type, const LandmarksArgs& args, void* stream);

std::string LaunchStoreChunks(GpuShape shape, const StoreChunksArgs& args, void* stream);

std::string LaunchAddRmsNorm(DType type, const AddRmsNormArgs& args, int num_rows, void* stream);
// to[i] = from[rows[i]], and to[rows[i]] = from[i].
std::string LaunchGatherRows(const GatherRowsArgs& args, int num_rows, void* stream);
std::string LaunchScatterRows(const GatherRowsArgs& args, int num_rows, void* stream);
std::string LaunchSwiGlu(DType type, const SwiGluArgs& args, void* stream);

}  // namespace evaserve

#pragma once

// All inner loops for the instruction set that the including file is compiled for.

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/isa/attend_rows.h"
#include "kernels/cpu/isa/depthwise_row.h"
#include "kernels/cpu/isa/elementwise.h"
#include "kernels/cpu/isa/landmark_chunk.h"
#include "kernels/cpu/isa/linear_tile.h"
#include "kernels/cpu/isa/slots.h"
#include "kernels/cpu/isa/summarize_chunk.h"
#include "kernels/cpu/isa/window_attend.h"

namespace evaserve {
namespace {

constexpr CpuKernels MakeKernels(const char* name) {
  CpuKernels kernels = {};
  kernels.name = name;
  kernels.attend_rows = kAttendRows;
  kernels.attend_scratch_bytes = AttendScratchBytes;
  kernels.attend = Attend;
  kernels.linear = Linear;
  kernels.to_bfloat16 = ToBFloat16Row;
  kernels.store = StoreTokens;
  kernels.summarize_scratch_bytes = SummarizeScratchBytes;
  kernels.summarize = Summarize;
  kernels.landmark_sum = SumLandmark;
  kernels.landmark_value = LandmarkValue;
  kernels.window_attend_scratch_bytes = WindowAttendScratchBytes;
  kernels.window_attend = AttendWindows;
  kernels.depthwise_row = ConvolveRow;
  kernels.rms_norm = RmsNorm;
  kernels.layer_norm = LayerNorm;
  kernels.swiglu = SwiGlu;
  kernels.gelu = Gelu;
  kernels.geglu = GeGlu;
  kernels.relu = Relu;
  return kernels;
}

}  // namespace
}  // namespace evaserve

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/gpu.h"
#include "models/evabyte/tensors.h"

namespace evaserve {

// The weights on a device: matrices in the type that is asked for, vectors in float32.
struct EvaByteCudaWeights {
  struct Layer {
    GpuMemory attention_norm, mlp_norm, mu, phi;
    GpuMemory qkv, out, gate_up, down;
  };
  GpuMemory embedding, final_norm, lm_head;
  std::vector<Layer> layers;
  int64_t num_parameters = 0;
  int64_t bytes = 0;
};

// Needs the checkpoint of `tensors` no more when it returns. ResourceExhausted if the weights do
// not fit the device.
absl::StatusOr<EvaByteCudaWeights> UploadEvaByteWeights(const EvaByteTensors& tensors, DType dtype,
                                                        Gpu& gpu);

}  // namespace evaserve

#pragma once

#include <cstdint>
#include <memory>

namespace evaserve {

// y = x W^T by LibTorch's fastest matrix product of a type on this machine: brgemm on packed blocks
// of 64 output features. One thread. What our kernels are compared to. bfloat16 on a machine
// without instructions for it is float32 with rounded operands.
class TorchGemm {
 public:
  // w is float32 [out_features, in_features], both multiples of 64.
  TorchGemm(const float* w, int64_t out_features, int64_t in_features, bool is_bfloat16);
  ~TorchGemm();

  // x is float32 [rows, in_features]. Not part of the time that Run takes.
  void SetInput(const float* x, int64_t rows);
  // float32 [rows, out_features]
  void Run(float* y) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// GFLOP/s of TorchGemm on a product that fits the second-level cache: this machine's ceiling.
double MeasureTorchGemm(bool is_bfloat16);

}  // namespace evaserve

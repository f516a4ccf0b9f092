#include "bench/kernels/torch_gemm.h"

#include <ATen/native/CPUBlas.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "bench/kernels/timing.h"

namespace evaserve {
namespace {

constexpr int64_t kBlock = 64;  // columns and rows of a block
using at::native::cpublas::brgemm;

template <typename T>
struct Operands {
  std::vector<T> x;
  std::vector<T> w;  // [out / 64][in / pack][64][pack]
};

template <typename T>
std::vector<T> Pack(const float* w, int64_t out_features, int64_t in_features) {
  const int64_t pack = 4 / sizeof(T);
  std::vector<T> packed(out_features * in_features);
  for (int64_t n = 0; n < out_features; ++n) {
    for (int64_t k = 0; k < in_features; ++k) {
      const int64_t row = n / kBlock * in_features / pack + k / pack;
      packed[(row * kBlock + n % kBlock) * pack + k % pack] =
          static_cast<T>(w[n * in_features + k]);
    }
  }
  return packed;
}

template <typename T>
void Multiply(const Operands<T>& operands, int64_t rows, int64_t out_features, int64_t in_features,
              float* y) {
  constexpr bool kIsVnni = sizeof(T) == 2;
  for (int64_t row = 0; row < rows; row += kBlock) {
    const int64_t count = std::min(kBlock, rows - row);
    for (int64_t n = 0; n < out_features; n += kBlock) {
      brgemm(count, kBlock, in_features, in_features, kBlock, out_features, /*add_C=*/false,
             operands.x.data() + row * in_features, operands.w.data() + n * in_features,
             y + row * out_features + n, kIsVnni);
    }
  }
}

// Whether this machine has instructions for it; LibTorch says so by an exception.
bool HasBFloat16Brgemm() {
  Operands<at::BFloat16> operands{.x = std::vector<at::BFloat16>(kBlock * kBlock),
                                  .w = std::vector<at::BFloat16>(kBlock * kBlock)};
  std::vector<float> y(kBlock * kBlock);
  try {
    Multiply(operands, kBlock, kBlock, kBlock, y.data());
  } catch (const c10::Error&) {
    return false;
  }
  return true;
}

std::vector<float> Rounded(const float* values, int64_t count, bool to_bfloat16) {
  std::vector<float> rounded(values, values + count);
  if (to_bfloat16) {
    for (float& value : rounded) value = static_cast<at::BFloat16>(value);
  }
  return rounded;
}

}  // namespace

struct TorchGemm::State {
  int64_t rows = 0, out_features = 0, in_features = 0;
  bool is_bfloat16 = false;   // operands' values
  bool has_bfloat16 = false;  // they are kept as such, not as float32
  Operands<float> float32;
  Operands<at::BFloat16> bfloat16;
};

TorchGemm::TorchGemm(const float* w, int64_t out_features, int64_t in_features, bool is_bfloat16)
    : state_(std::make_unique<State>()) {
  state_->out_features = out_features;
  state_->in_features = in_features;
  state_->is_bfloat16 = is_bfloat16;
  state_->has_bfloat16 = is_bfloat16 && HasBFloat16Brgemm();
  const auto rounded = Rounded(w, out_features * in_features, is_bfloat16);
  if (state_->has_bfloat16) {
    state_->bfloat16.w = Pack<at::BFloat16>(rounded.data(), out_features, in_features);
  } else {
    state_->float32.w = Pack<float>(rounded.data(), out_features, in_features);
  }
}

TorchGemm::~TorchGemm() { at::native::cpublas::brgemm_release(state_->has_bfloat16); }

void TorchGemm::SetInput(const float* x, int64_t rows) {
  const int64_t count = rows * state_->in_features;
  state_->rows = rows;
  if (state_->has_bfloat16) {
    state_->bfloat16.x.assign(x, x + count);
  } else {
    state_->float32.x = Rounded(x, count, state_->is_bfloat16);
  }
}

void TorchGemm::Run(float* y) const {
  if (state_->has_bfloat16) {
    Multiply(state_->bfloat16, state_->rows, state_->out_features, state_->in_features, y);
  } else {
    Multiply(state_->float32, state_->rows, state_->out_features, state_->in_features, y);
  }
}

double MeasureTorchGemm(bool is_bfloat16) {
  constexpr int64_t kRows = 192, kOut = 256, kIn = 512;
  const std::vector<float> w(kOut * kIn, 0.5f), x(kRows * kIn, 0.5f);
  std::vector<float> y(kRows * kOut);
  TorchGemm gemm(w.data(), kOut, kIn, is_bfloat16);
  gemm.SetInput(x.data(), kRows);
  gemm.Run(y.data());
  std::vector<double> times;
  for (int i = 0; i < 40; ++i) times.push_back(SecondsOf([&] { gemm.Run(y.data()); }));
  return 2e-9 * kRows * kOut * kIn / Median(times);
}

}  // namespace evaserve

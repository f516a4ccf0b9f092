#pragma once

#include <cublasLt.h>

#include "absl/status/statusor.h"

namespace evaserve {

// The functions of cuBLASLt that we use.
//
// The library is loaded when a device is opened, not with the program: where there is none, a
// server runs on the CPU without it, and its 94 KB of memory for each thread would not fit the
// threads that others start with small stacks (those of civetweb have 100 KB).
struct CublasLt {
  decltype(&cublasLtCreate) Create;
  decltype(&cublasLtDestroy) Destroy;
  decltype(&cublasLtGetStatusString) GetStatusString;
  decltype(&cublasLtMatmul) Matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic;
  decltype(&cublasLtMatmulDescCreate) MatmulDescCreate;
  decltype(&cublasLtMatmulDescDestroy) MatmulDescDestroy;
  decltype(&cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute;
  decltype(&cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate;
  decltype(&cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute;
  decltype(&cublasLtMatrixLayoutCreate) MatrixLayoutCreate;
  decltype(&cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy;
};

// Loaded at the first call and never unloaded. NotFound, with the linker's words, if the library or
// a function of it is missing. Thread-safe.
absl::StatusOr<const CublasLt*> LoadCublasLt();

}  // namespace evaserve

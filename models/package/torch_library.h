#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "models/package/tensor_program.h"

namespace evaserve {

// Loads a program with libevaserve_torch_models.so, which brings LibTorch: 500 MB that a server of
// EVA's own architectures does not need. It is opened with the first package and stays; an empty
// `library` looks for it beside the executable, in ../lib, and where the system has libraries.
//
// It is opened with RTLD_LOCAL: nothing of the server binds to LibTorch. The other way, LibTorch's
// bundled Protobuf and Abseil have no exported name in common with the server's (ADR 7).
//
// Errors: FailedPrecondition, telling what is missing where, if it or LibTorch cannot be opened or
// is of another version; else as LoadTorchProgramFn's. Thread-safe.
absl::StatusOr<std::unique_ptr<TensorProgram>> LoadTorchProgram(
    const std::filesystem::path& library, const ProgramOptions& options);

}  // namespace evaserve

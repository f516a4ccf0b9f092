#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "models/tensor.h"

namespace evaserve {

// A dense, row-major tensor whose memory somebody else keeps.
struct ProgramTensor {
  TensorType type = TensorType::kFp32;
  std::vector<int64_t> shape;
  std::byte* data = nullptr;  // aligned to 64 bytes in what a program takes
};

// A program of somebody else's that turns tensors into tensors. Not thread-safe.
class TensorProgram {
 public:
  virtual ~TensorProgram() = default;

  // The program may write to its inputs and keep them. The results' memory stays until the next
  // Run(). Errors: InvalidArgument if the program refuses the inputs, with its own words;
  // ResourceExhausted if memory is missing.
  virtual absl::StatusOr<std::vector<ProgramTensor>> Run(std::span<const ProgramTensor> inputs) = 0;

  virtual int64_t num_parameters() const = 0;
  virtual int64_t weight_bytes() const = 0;
};

enum class ProgramKind { kTorchScript, kAotInductor };

struct ProgramOptions {
  ProgramKind kind = ProgramKind::kTorchScript;
  std::filesystem::path file;
  int num_inputs = 0;
  int num_threads = 1;
};

// What libevaserve_torch_models.so exports. Both sides have to be of one build (only the versions
// are compared), so that they agree about C++'s and Abseil's types.
extern "C" {
using TorchModelsVersionFn = const char*();
// `program` takes the result: InvalidArgument, naming the file, if LibTorch cannot load it or it
// takes another number of inputs.
using LoadTorchProgramFn = void(const ProgramOptions& options,
                                absl::StatusOr<std::unique_ptr<TensorProgram>>& program);
}
inline constexpr char kTorchModelsVersion[] = "EvaserveTorchModelsVersion";
inline constexpr char kLoadTorchProgram[] = "EvaserveLoadTorchProgram";

}  // namespace evaserve

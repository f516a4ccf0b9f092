// libevaserve_torch_models.so: packages on LibTorch, the only file of models/ that includes it.
// What it exports: tensor_program.h.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/package/tensor_program.h"

namespace evaserve {
namespace {

struct TypePair {
  TensorType ours;
  at::ScalarType torch;
};
constexpr TypePair kTypes[] = {
    {TensorType::kBool, at::kBool},  {TensorType::kUint8, at::kByte},
    {TensorType::kInt8, at::kChar},  {TensorType::kInt16, at::kShort},
    {TensorType::kInt32, at::kInt},  {TensorType::kInt64, at::kLong},
    {TensorType::kFp16, at::kHalf},  {TensorType::kBf16, at::kBFloat16},
    {TensorType::kFp32, at::kFloat}, {TensorType::kFp64, at::kDouble},
};

// An error's text; of TorchScript's, without the trace of the program, the error at its end.
std::string Reason(std::string text) {
  constexpr size_t kMaxLength = 1000;
  constexpr std::string_view kError = "Error: ";
  const size_t last = text.rfind(kError);
  if (absl::StrContains(text, "Traceback of TorchScript") && last != std::string::npos) {
    text = text.substr(last + kError.size());
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(0, kMaxLength);
}

// `text` as an error of `what`. LibTorch has no type of its own for a lack of memory that reaches
// us through TorchScript.
absl::Status ErrorOf(const std::string& what, const std::string& text) {
  const std::string message = absl::StrCat(what, ": ", Reason(text));
  if (absl::StrContains(text, "not enough memory")) return absl::ResourceExhaustedError(message);
  // What compiled code has to say it writes to standard error itself.
  if (absl::StrContains(text, "API call failed")) {
    return absl::InternalError(absl::StrCat(what, ": its code failed; standard error tells why"));
  }
  return absl::InvalidArgumentError(message);
}

// The one place where exceptions of LibTorch, and of the programs that run on it, become a status.
template <typename Fn>
auto Guarded(const std::string& what, Fn&& fn) -> decltype(fn()) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": not enough memory"));
  } catch (const c10::Error& error) {
    return ErrorOf(what, error.what_without_backtrace());
  } catch (const std::exception& error) {
    return ErrorOf(what, error.what());
  } catch (...) {
    return absl::InternalError(absl::StrCat(what, ": an exception of no known type"));
  }
}

absl::Status GivesNoTensors(const c10::IValue& result) {
  return absl::InternalError(absl::StrCat("the package gives a ", result.tagKind(),
                                          ", must be a tensor, or a tuple or list of tensors"));
}

// What both kinds of programs have in common.
class TorchProgram : public TensorProgram {
 public:
  explicit TorchProgram(int num_threads) : num_threads_(num_threads) {}

  absl::StatusOr<std::vector<ProgramTensor>> Run(std::span<const ProgramTensor> inputs) override {
    using Result = absl::StatusOr<std::vector<ProgramTensor>>;
    return Guarded("the package", [&]() -> Result {
      const c10::InferenceMode inference;
      // OpenMP's number is the calling thread's own: one team for each model's engine.
      if (at::get_num_threads() != num_threads_) at::set_num_threads(num_threads_);
      std::vector<at::Tensor> tensors;
      for (const ProgramTensor& input : inputs) {
        const auto* const type = std::ranges::find(kTypes, input.type, &TypePair::ours);
        // The program may keep it, and our memory is used again.
        tensors.push_back(
            at::from_blob(input.data, input.shape, at::TensorOptions(type->torch)).clone());
      }
      absl::StatusOr<std::vector<at::Tensor>> outputs = Forward(std::move(tensors));
      if (!outputs.ok()) return outputs.status();
      outputs_ = *std::move(outputs);
      return Outputs();
    });
  }

  int64_t num_parameters() const override { return num_parameters_; }
  int64_t weight_bytes() const override { return weight_bytes_; }

 protected:
  // Internal if the results are no tensors.
  virtual absl::StatusOr<std::vector<at::Tensor>> Forward(std::vector<at::Tensor> inputs) = 0;

  int64_t num_parameters_ = 0;
  int64_t weight_bytes_ = 0;

 private:
  absl::StatusOr<std::vector<ProgramTensor>> Outputs() {
    std::vector<ProgramTensor> outputs;
    for (at::Tensor& output : outputs_) {
      output = output.to(at::kCPU).contiguous();
      const auto* const type = std::ranges::find(kTypes, output.scalar_type(), &TypePair::torch);
      if (type == std::end(kTypes)) {
        return absl::InternalError(
            absl::StrCat("the package gives a tensor of ", c10::toString(output.scalar_type())));
      }
      outputs.push_back(
          {type->ours, output.sizes().vec(), static_cast<std::byte*>(output.mutable_data_ptr())});
    }
    return outputs;
  }

  const int num_threads_;
  std::vector<at::Tensor> outputs_;  // keep what Run() has returned
};

class TorchScriptProgram final : public TorchProgram {
 public:
  explicit TorchScriptProgram(const ProgramOptions& options)
      : TorchProgram(options.num_threads),
        module_(torch::jit::load(options.file.string(), at::kCPU)) {
    module_.eval();
    for (const at::Tensor& parameter : module_.parameters()) {
      num_parameters_ += parameter.numel();
      weight_bytes_ += static_cast<int64_t>(parameter.nbytes());
    }
    for (const at::Tensor& buffer : module_.buffers()) {
      weight_bytes_ += static_cast<int64_t>(buffer.nbytes());
    }
    CheckArguments(options.num_inputs);
  }

 private:
  void CheckArguments(int num_inputs) const {
    const auto& arguments = module_.get_method("forward").function().getSchema().arguments();
    int required = -1;  // the module itself
    for (const c10::Argument& argument : arguments) required += !argument.default_value();
    const int allowed = static_cast<int>(arguments.size()) - 1;
    TORCH_CHECK(required <= num_inputs && num_inputs <= allowed, "forward takes ", allowed,
                " tensors, config.json declares ", num_inputs, " inputs (with lengths)");
  }

  absl::StatusOr<std::vector<at::Tensor>> Forward(std::vector<at::Tensor> inputs) override {
    const c10::IValue result = module_.forward({inputs.begin(), inputs.end()});
    if (result.isTensor()) return std::vector<at::Tensor>{result.toTensor()};
    if (result.isTensorList()) return result.toTensorVector();
    if (!result.isTuple()) return GivesNoTensors(result);
    std::vector<at::Tensor> outputs;
    for (const c10::IValue& element : result.toTupleRef().elements()) {
      if (!element.isTensor()) return GivesNoTensors(element);
      outputs.push_back(element.toTensor());
    }
    return outputs;
  }

  torch::jit::Module module_;
};

class AotInductorProgram final : public TorchProgram {
 public:
  explicit AotInductorProgram(const ProgramOptions& options)
      : TorchProgram(options.num_threads), loader_(options.file.string()) {
    std::error_code error;  // it knows no better number
    weight_bytes_ = static_cast<int64_t>(std::filesystem::file_size(options.file, error));
    CheckArguments(options.num_inputs);
  }

 private:
  // The code of a package does not count what it is given. Its description of the arguments is a
  // tree in JSON, whose leaves are of type null.
  void CheckArguments(int num_inputs) {
    const std::string arguments = loader_.get_call_spec().at(0);
    constexpr std::string_view kLeaf = "\"type\": null";
    int leaves = 0;
    for (size_t at = 0; (at = arguments.find(kLeaf, at)) != std::string::npos; ++at) ++leaves;
    TORCH_CHECK(leaves == num_inputs, "the program takes ", leaves,
                " tensors, config.json declares ", num_inputs, " inputs (with lengths)");
  }

  absl::StatusOr<std::vector<at::Tensor>> Forward(std::vector<at::Tensor> inputs) override {
    return loader_.boxed_run(std::move(inputs));
  }

  torch::inductor::AOTIModelPackageLoader loader_;
};

absl::StatusOr<std::unique_ptr<TensorProgram>> Load(const ProgramOptions& options) {
  using Result = absl::StatusOr<std::unique_ptr<TensorProgram>>;
  return Guarded(options.file.string(), [&]() -> Result {
    // Threads that TorchScript's fork() would use beside those of an operator: a model has its
    // share of the machine already. Can be set once.
    static std::once_flag once;
    std::call_once(once, [] { at::set_num_interop_threads(1); });
    at::set_num_threads(options.num_threads);
    if (options.kind == ProgramKind::kTorchScript) {
      return std::make_unique<TorchScriptProgram>(options);
    }
    return std::make_unique<AotInductorProgram>(options);
  });
}

}  // namespace
}  // namespace evaserve

extern "C" __attribute__((visibility("default"))) const char* EvaserveTorchModelsVersion() {
  return EVASERVE_VERSION;
}

extern "C" __attribute__((visibility("default"))) void EvaserveLoadTorchProgram(
    const evaserve::ProgramOptions& options,
    absl::StatusOr<std::unique_ptr<evaserve::TensorProgram>>& program) {
  program = evaserve::Load(options);
}

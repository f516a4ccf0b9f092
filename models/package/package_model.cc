#include "models/package/package_model.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/device.h"
#include "models/package/torch_library.h"

namespace evaserve {
namespace {

class PackageModel final : public TensorModel {
 public:
  PackageModel(TensorModelInfo info, JoinPlan plan, std::unique_ptr<TensorProgram> program)
      : info_(std::move(info)), plan_(std::move(plan)), program_(std::move(program)) {}

  const TensorModelInfo& info() const override { return info_; }

  absl::StatusOr<int64_t> CountTokens(const Inputs& inputs) const override {
    if (absl::Status status = CheckInputs(plan_, inputs); !status.ok()) return status;
    return NumRaggedTokens(plan_, inputs);
  }

  absl::StatusOr<std::vector<Outputs>> Run(std::span<const Inputs* const> requests) override {
    for (const Inputs* inputs : requests) {
      if (absl::Status status = CheckInputs(plan_, *inputs); !status.ok()) return status;
    }
    std::vector<Outputs> results(requests.size());
    for (const std::vector<size_t>& group : GroupByShape(plan_, requests)) {
      std::vector<const Inputs*> members;
      for (const size_t index : group) members.push_back(requests[index]);
      absl::StatusOr<std::vector<Outputs>> outputs = RunGroup(members);
      if (!outputs.ok()) return outputs.status();
      for (size_t i = 0; i < group.size(); ++i) results[group[i]] = std::move((*outputs)[i]);
    }
    return results;
  }

 private:
  // torch.export takes a size that may vary to be 2 or more, whatever range its caller gives, and
  // the code of an AOTInductor package fails for less. A lone row that fails is tried doubled; if
  // that helps, later ones are doubled at once.
  absl::StatusOr<std::vector<Outputs>> RunGroup(std::span<const Inputs* const> requests) {
    const bool is_one_row = requests.size() == 1 && requests[0]->front().shape[0] == 1;
    if (is_one_row && wants_two_rows_) return RunDoubled(*requests[0]);
    const absl::StatusOr<std::vector<ProgramTensor>> outputs = program_->Run(batch_.Join(requests));
    if (outputs.ok()) return batch_.Split(*outputs);
    if (!is_one_row || !absl::IsInternal(outputs.status())) return outputs.status();
    absl::StatusOr<std::vector<Outputs>> doubled = RunDoubled(*requests[0]);
    if (absl::IsInternal(doubled.status())) return outputs.status();
    wants_two_rows_ = doubled.ok();
    return doubled;
  }

  absl::StatusOr<std::vector<Outputs>> RunDoubled(const Inputs& request) {
    const Inputs* const requests[] = {&request, &request};
    const absl::StatusOr<std::vector<ProgramTensor>> outputs = program_->Run(batch_.Join(requests));
    if (!outputs.ok()) return outputs.status();
    absl::StatusOr<std::vector<Outputs>> answers = batch_.Split(*outputs);
    if (answers.ok()) answers->pop_back();
    return answers;
  }

  const TensorModelInfo info_;
  const JoinPlan plan_;
  const std::unique_ptr<TensorProgram> program_;
  JoinedBatch batch_{plan_};
  bool wants_two_rows_ = false;
};

absl::Status CheckAllowed(const LoadOptions& options, const std::filesystem::path& directory) {
  if (options.packages.are_allowed) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(directory.string(),
                   " is a package: a program that would run with the server's "
                   "rights. --allow-packages lets it (docs/security.md)"));
}

TensorModelInfo InfoOf(const std::string& model_type, const JoinPlan& plan,
                       const RaggedTensors& ragged, const TensorProgram& program) {
  TensorModelInfo info{.architecture = model_type,
                       .inputs = plan.config.inputs,
                       .outputs = plan.config.outputs,
                       .num_parameters = program.num_parameters(),
                       .weight_bytes = program.weight_bytes()};
  if (!ragged.empty()) info.parameters["ragged_inputs"] = absl::StrJoin(ragged.inputs, ",");
  return info;
}

}  // namespace

std::unique_ptr<TensorModel> MakePackageModel(TensorModelInfo info, JoinPlan plan,
                                              std::unique_ptr<TensorProgram> program) {
  return std::make_unique<PackageModel>(std::move(info), std::move(plan), std::move(program));
}

absl::StatusOr<std::unique_ptr<TensorModel>> LoadPackageModel(
    const std::filesystem::path& directory, const nlohmann::json& config,
    const LoadOptions& options, const WorkerPool& pool) {
  if (absl::Status status = CheckAllowed(options, directory); !status.ok()) return status;
  if (absl::Status status = RequireCpu(options.device); !status.ok()) return status;
  const std::string where = (directory / "config.json").string();
  absl::StatusOr<PackageConfig> declared = ReadPackageConfig(config, where);
  if (!declared.ok()) return declared.status();
  const RaggedTensors& ragged = options.packages.ragged;
  absl::StatusOr<JoinPlan> plan = MakeJoinPlan(*std::move(declared), ragged);
  if (!plan.ok()) {
    return absl::InvalidArgumentError(absl::StrCat((directory / "serving.json").string(), ": ",
                                                   std::string(plan.status().message())));
  }
  const std::string model_type = config.at("model_type");
  const bool is_script = model_type == "torchscript";
  const ProgramOptions program_options{
      .kind = is_script ? ProgramKind::kTorchScript : ProgramKind::kAotInductor,
      .file = directory / (is_script ? "model.pt" : "model.pt2"),
      .num_inputs = plan->num_program_inputs(),
      .num_threads = pool.num_workers()};
  std::error_code error;
  if (!std::filesystem::is_regular_file(program_options.file, error)) {
    return absl::NotFoundError(
        absl::StrCat(program_options.file.string(), ": there is no such file"));
  }
  absl::StatusOr<std::unique_ptr<TensorProgram>> program =
      LoadTorchProgram(options.packages.torch_library, program_options);
  if (!program.ok()) return program.status();
  TensorModelInfo info = InfoOf(model_type, *plan, ragged, **program);
  return MakePackageModel(std::move(info), *std::move(plan), *std::move(program));
}

}  // namespace evaserve

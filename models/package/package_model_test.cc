// Packages without LibTorch: what a program of ours is given, and what loading says of a directory
// that is wrong. tests/conformance/test_packages.py has real ones.

#include "models/package/package_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "kernels/serial_worker_pool.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

// Gives back its only input.
class EchoProgram : public TensorProgram {
 public:
  explicit EchoProgram(std::vector<int64_t>& rows) : rows_(rows) {}

  absl::StatusOr<std::vector<ProgramTensor>> Run(std::span<const ProgramTensor> inputs) override {
    rows_.push_back(inputs[0].shape[0]);
    return std::vector<ProgramTensor>(inputs.begin(), inputs.end());
  }
  int64_t num_parameters() const override { return 0; }
  int64_t weight_bytes() const override { return 0; }

 private:
  std::vector<int64_t>& rows_;  // of each call
};

TEST(PackageModelTest, RequestsOfOtherShapesGoInCallsOfTheirOwn) {
  const PackageConfig config = {{{"x", TensorType::kInt8, {-1, -1}}},
                                {{"y", TensorType::kInt8, {-1, -1}}}};
  std::vector<int64_t> rows;
  const auto model =
      MakePackageModel({}, MakeJoinPlan(config, {}).value(), std::make_unique<EchoProgram>(rows));
  const TensorModel::Inputs a = {{{1, 2}, "ab"}}, b = {{{1, 3}, "cde"}}, c = {{{2, 2}, "fghi"}};
  const TensorModel::Inputs* requests[] = {&a, &b, &c};

  const auto results = model->Run(requests);

  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[0][0].data, "ab");
  EXPECT_EQ((*results)[1][0].data, "cde");
  EXPECT_EQ((*results)[2][0].data, "fghi");
  EXPECT_THAT((*results)[2][0].shape, ElementsAre(2, 2));
  EXPECT_THAT(rows, ElementsAre(3, 1));
}

// Gives back its only input, or the status of so many rows, if that is given.
class EchoOrFailProgram final : public EchoProgram {
 public:
  EchoOrFailProgram(std::vector<int64_t>& rows, std::map<int64_t, absl::Status> failures)
      : EchoProgram(rows), failures_(std::move(failures)) {}

  absl::StatusOr<std::vector<ProgramTensor>> Run(std::span<const ProgramTensor> inputs) override {
    const auto outputs = EchoProgram::Run(inputs);
    const auto failure = failures_.find(inputs[0].shape[0]);
    if (failure != failures_.end()) return failure->second;
    return outputs;
  }

 private:
  const std::map<int64_t, absl::Status> failures_;
};

// A package whose program fails for some numbers of rows, of two bytes each.
class LoneRowTest : public ::testing::Test {
 protected:
  void Load(std::map<int64_t, absl::Status> failures) {
    model_ = MakePackageModel({}, MakeJoinPlan(config_, {}).value(),
                              std::make_unique<EchoOrFailProgram>(rows_, std::move(failures)));
  }

  absl::StatusOr<std::vector<TensorModel::Outputs>> Run(
      std::initializer_list<const TensorModel::Inputs*> requests) {
    return model_->Run({requests.begin(), requests.size()});
  }

  const PackageConfig config_ = {{{"x", TensorType::kInt8, {-1, 2}}},
                                 {{"y", TensorType::kInt8, {-1, 2}}}};
  const TensorModel::Inputs one_ = {{{1, 2}, "ab"}}, two_ = {{{2, 2}, "cdef"}};
  std::vector<int64_t> rows_;  // of each call of the program
  std::unique_ptr<TensorModel> model_;
};

TEST_F(LoneRowTest, IsDoubledWhereTheProgramRefusesIt) {
  Load({{1, absl::InternalError("a row alone")}});

  for (const TensorModel::Inputs* inputs : {&one_, &two_, &one_}) {
    const auto results = Run({inputs});
    ASSERT_TRUE(results.ok()) << results.status();
    ASSERT_EQ(results->size(), 1);
    EXPECT_EQ((*results)[0][0].shape, (*inputs)[0].shape);
    EXPECT_EQ((*results)[0][0].data, (*inputs)[0].data);
  }

  EXPECT_THAT(rows_, ElementsAre(1, 2, 2, 2));
}

TEST_F(LoneRowTest, IsNotDoubledBesideAnother) {
  Load({{1, absl::InternalError("a row alone")}});
  ASSERT_TRUE(Run({&one_}).ok());

  const auto results = Run({&one_, &one_});

  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(results->size(), 2);
  EXPECT_THAT(rows_, ElementsAre(1, 2, 2));
}

TEST_F(LoneRowTest, FailsAsAloneIfDoublingDoesNotHelp) {
  Load({{1, absl::InternalError("alone")}, {2, absl::InternalError("doubled")}});

  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Run({&one_}).status(), IsError(absl::StatusCode::kInternal, "alone"));
  }
  EXPECT_THAT(rows_, ElementsAre(1, 2, 1, 2));
}

TEST_F(LoneRowTest, TellsThatMemoryForTwoIsMissing) {
  Load({{1, absl::InternalError("alone")}, {2, absl::ResourceExhaustedError("memory")}});

  EXPECT_THAT(Run({&one_}).status(), IsError(absl::StatusCode::kResourceExhausted, "memory"));
}

TEST_F(LoneRowTest, IsNotDoubledForWhatItsValuesAre) {
  Load({{1, absl::InvalidArgumentError("index out of range")}});

  EXPECT_THAT(Run({&one_}).status(), IsError(kInvalid, "index out of range"));
  EXPECT_THAT(rows_, ElementsAre(1));
}

class LoadPackageTest : public ::testing::Test {
 protected:
  LoadPackageTest() { options_.packages.are_allowed = true; }

  absl::Status LoadError() {
    return LoadPackageModel(dir_.path(), config_, options_, workers_).status();
  }

  const nlohmann::json tensor_ = {{"name", "x"}, {"datatype", "FP32"}, {"shape", {-1, 4}}};
  nlohmann::json config_ = {
      {"model_type", "torchscript"}, {"inputs", {tensor_}}, {"outputs", {tensor_}}};
  LoadOptions options_;
  const TempDir dir_;
  SerialWorkerPool workers_;
};

TEST_F(LoadPackageTest, MustBeAllowed) {
  options_.packages.are_allowed = false;
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kPermissionDenied, dir_.path().string(),
                                   "--allow-packages"));
}

TEST_F(LoadPackageTest, NamesTheFileThatIsMissing) {
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kNotFound, "model.pt: "));
  config_["model_type"] = "aot_inductor";
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kNotFound, "model.pt2: "));
}

TEST_F(LoadPackageTest, TellsThatTheLibraryIsMissing) {
  WriteFile(dir_.path() / "model.pt", "");
  options_.packages.torch_library = dir_.path() / "none.so";
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kFailedPrecondition, "none.so", "LibTorch",
                                   "--torch-library"));
}

TEST_F(LoadPackageTest, TellsWhyTheLibraryCannotBeOpened) {
  WriteFile(dir_.path() / "model.pt", "");
  options_.packages.torch_library = dir_.path() / "bad.so";
  WriteFile(options_.packages.torch_library, "not a library");
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kFailedPrecondition, "bad.so: "));
}

TEST_F(LoadPackageTest, NamesServingJsonForWrongRaggedTensors) {
  options_.packages.ragged.inputs = {"x"};
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kInvalidArgument, "serving.json: \"ragged\"",
                                   "input \"x\" is [-1,4]"));
}

TEST_F(LoadPackageTest, RunsOnTheCpuAlone) {
  options_.device.kind = Device::Kind::kCuda;
  EXPECT_EQ(LoadError().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace evaserve

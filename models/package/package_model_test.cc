// Packages without LibTorch: what a program of ours is given, and what loading says of a directory
// that is wrong. tests/conformance/test_packages.py has real ones.

#include "models/package/package_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
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

// Gives back its only input, of two rows or more.
class EchoOfTwoProgram final : public EchoProgram {
 public:
  using EchoProgram::EchoProgram;

  absl::StatusOr<std::vector<ProgramTensor>> Run(std::span<const ProgramTensor> inputs) override {
    const auto outputs = EchoProgram::Run(inputs);
    if (inputs[0].shape[0] < 2) return absl::InternalError("a row alone");
    return outputs;
  }
};

TEST(PackageModelTest, OneRowGoesInTwiceWhereThePackageRefusesOne) {
  const PackageConfig config = {{{"x", TensorType::kInt8, {-1, 2}}},
                                {{"y", TensorType::kInt8, {-1, 2}}}};
  std::vector<int64_t> rows;
  const auto model = MakePackageModel({}, MakeJoinPlan(config, {}).value(),
                                      std::make_unique<EchoOfTwoProgram>(rows));
  const TensorModel::Inputs one = {{{1, 2}, "ab"}}, two = {{{2, 2}, "cdef"}};

  for (const TensorModel::Inputs* inputs : {&one, &two, &one}) {
    const auto results = model->Run({&inputs, 1});
    ASSERT_TRUE(results.ok()) << results.status();
    ASSERT_EQ(results->size(), 1);
    EXPECT_EQ((*results)[0][0].shape, (*inputs)[0].shape);
    EXPECT_EQ((*results)[0][0].data, (*inputs)[0].data);
  }

  EXPECT_THAT(rows, ElementsAre(1, 2, 2, 2));
}

// Fails, whatever comes.
class FailingProgram final : public EchoProgram {
 public:
  using EchoProgram::EchoProgram;

  absl::StatusOr<std::vector<ProgramTensor>> Run(std::span<const ProgramTensor> inputs) override {
    const auto outputs = EchoProgram::Run(inputs);
    return absl::InternalError(absl::StrCat("rows: ", inputs[0].shape[0]));
  }
};

TEST(PackageModelTest, OneRowThatFailsTwiceIsTheFirstFailure) {
  const PackageConfig config = {{{"x", TensorType::kInt8, {-1}}}, {{"y", TensorType::kInt8, {-1}}}};
  std::vector<int64_t> rows;
  const auto model = MakePackageModel({}, MakeJoinPlan(config, {}).value(),
                                      std::make_unique<FailingProgram>(rows));
  const TensorModel::Inputs one = {{{1}, "a"}};
  const TensorModel::Inputs* requests[] = {&one};

  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(model->Run(requests).status(), IsError(absl::StatusCode::kInternal, "rows: 1"));
  }
  EXPECT_THAT(rows, ElementsAre(1, 2, 1, 2));
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

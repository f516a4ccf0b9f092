#include "models/package/package_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

const nlohmann::json kOutputs = {{{"name", "y"}, {"datatype", "INT64"}, {"shape", {-1}}}};

TEST(PackageConfigTest, ReadsWhatAPackageTakesAndGives) {
  const nlohmann::json config = {
      {"inputs", {{{"name", "x"}, {"datatype", "FP32"}, {"shape", {-1, 3, -1}}}}},
      {"outputs", kOutputs}};

  const absl::StatusOr<PackageConfig> read = ReadPackageConfig(config, "config.json");

  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->inputs.size(), 1u);
  EXPECT_EQ(read->inputs[0].name, "x");
  EXPECT_THAT(read->inputs[0].shape, ElementsAre(-1, 3, -1));
  EXPECT_EQ(read->outputs[0].type, TensorType::kInt64);
}

struct BadInputs {
  const char* inputs;
  const char* message;
};

class PackageConfigErrorTest : public ::testing::TestWithParam<BadInputs> {};

TEST_P(PackageConfigErrorTest, NamesTheKey) {
  const nlohmann::json config = {{"inputs", nlohmann::json::parse(GetParam().inputs)},
                                 {"outputs", kOutputs}};
  EXPECT_THAT(ReadPackageConfig(config, "config.json").status(),
              IsError(absl::StatusCode::kInvalidArgument, "config.json", GetParam().message));
}

// clang-format off
INSTANTIATE_TEST_SUITE_P(All, PackageConfigErrorTest, ::testing::Values(
    BadInputs{"[]", "\"inputs\" is [], allowed is a list of 1 to 64"},
    BadInputs{"[3]", "inputs[0] is 3"},
    BadInputs{R"([{"datatype": "FP32", "shape": [-1]}])", "\"name\""},
    BadInputs{R"([{"name": "x", "datatype": "BYTES", "shape": [-1]}])", "\"datatype\""},
    BadInputs{R"([{"name": "x", "shape": [-1]}])", "\"datatype\""},
    BadInputs{R"([{"name": "x", "datatype": "FP32", "shape": [4]}])", "begins with -1"},
    BadInputs{R"([{"name": "x", "datatype": "FP32", "shape": [-1]},
                  {"name": "x", "datatype": "FP32", "shape": [-1]}])", "two are named \"x\""}));
// clang-format on

TEST(PackageConfigTest, WantsOutputs) {
  const nlohmann::json config = {{"inputs", kOutputs}};
  EXPECT_THAT(ReadPackageConfig(config, "config.json").status(),
              IsError(absl::StatusCode::kInvalidArgument, "\"outputs\" is missing"));
}

}  // namespace
}  // namespace evaserve

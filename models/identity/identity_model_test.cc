#include "models/identity/identity_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace evaserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(IdentityModelTest, GivesBackWhatItGets) {
  const auto model = LoadIdentityModel("dir", {{"model_type", "identity"}}).value();
  const TensorModel::Inputs first = {{{1, 2}, "12345678"}}, second = {{{2, 1}, "abcdefgh"}};
  const TensorModel::Inputs* requests[] = {&first, &second};

  const auto results = model->Run(requests);

  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_EQ(results->size(), 2u);
  EXPECT_EQ((*results)[0][0].data, "12345678");
  EXPECT_THAT((*results)[0][0].shape, ElementsAre(1, 2));
  EXPECT_EQ((*results)[1][0].data, "abcdefgh");
}

TEST(IdentityModelTest, TakesTheTensorsThatItsConfigSays) {
  const auto config = nlohmann::json::parse(
      R"({"inputs": [{"datatype": "BYTES", "shape": [-1]}, {"datatype": "INT64", "shape": [-1, 3]}]})");

  const auto model = LoadIdentityModel("dir", config).value();

  const TensorModelInfo& info = model->info();
  ASSERT_EQ(info.inputs.size(), 2u);
  EXPECT_EQ(info.inputs[1].name, "INPUT1");
  EXPECT_EQ(info.outputs[1].name, "OUTPUT1");
  EXPECT_EQ(info.outputs[1].type, TensorType::kInt64);
  EXPECT_THAT(info.outputs[1].shape, ElementsAre(-1, 3));
}

struct BadConfig {
  const char* inputs;
  const char* message;
};

class IdentityModelConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(IdentityModelConfigTest, RefusesABadConfig) {
  const nlohmann::json config{{"inputs", nlohmann::json::parse(GetParam().inputs)}};

  const absl::Status status = LoadIdentityModel("dir", config).status();

  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(status.message()), HasSubstr("dir/config.json"));
}

INSTANTIATE_TEST_SUITE_P(All, IdentityModelConfigTest,
                         ::testing::Values(BadConfig{"[]", "a list of 1 to 64"},
                                           BadConfig{"3", "a list of 1 to 64"},
                                           BadConfig{"[3]", "inputs[0] is 3"},
                                           BadConfig{R"([{"datatype": "FP31"}])", "\"datatype\""},
                                           BadConfig{R"([{"shape": [4, 4]}])", "begins with -1"},
                                           BadConfig{R"([{"shape": [-1, -2]}])", "\"shape\""}));

}  // namespace
}  // namespace evaserve

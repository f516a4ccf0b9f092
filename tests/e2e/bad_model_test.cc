// A model directory that is broken ends the real program with exit code 1 and a line that names the
// file and what is wrong with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "models/testing/random_model.h"
#include "models/testing/temp_dir.h"
#include "tests/e2e/program.h"

namespace evaserve {
namespace {

using testing::HasSubstr;
using Tensors = std::vector<TensorData>;

class BadModelTest : public testing::Test {
 protected:
  BadModelTest() { WriteRandomModel(directory_.path(), TinyConfig()); }

  void SpoilTensors(const std::function<void(Tensors&)>& spoil) {
    Tensors tensors = RandomTensors(TinyConfig());
    spoil(tensors);
    WriteFile(weights(), SafetensorsFile(tensors));
  }

  // Runs evaserve to its end, which must be a failure; returns its log.
  std::string Run() {
    Program program(EVASERVE_PROGRAM, {"--model", "bad=" + directory_.path().string(), "--address",
                                       "127.0.0.1:0", "--metrics-address", ""});
    EXPECT_EQ(program.Wait(), 1) << program.Error();
    return program.Error();
  }

  std::filesystem::path weights() const { return directory_.path() / "model.safetensors"; }
  std::filesystem::path config() const { return directory_.path() / "config.json"; }

  TempDir directory_;
};

TEST_F(BadModelTest, NoConfig) {
  std::filesystem::remove(config());
  EXPECT_THAT(Run(), HasSubstr("config.json"));
}

TEST_F(BadModelTest, ConfigIsNoJson) {
  WriteFile(config(), "{\"hidden_size\": ");
  EXPECT_THAT(Run(), HasSubstr("config.json"));
}

TEST_F(BadModelTest, ConfigWithoutAKey) {
  nlohmann::json json = ConfigJson(TinyConfig());
  json.erase("hidden_size");
  WriteFile(config(), json.dump());
  EXPECT_THAT(Run(), HasSubstr("hidden_size"));
}

TEST_F(BadModelTest, NoWeights) {
  std::filesystem::remove(weights());
  EXPECT_THAT(Run(), HasSubstr("model.safetensors"));
}

TEST_F(BadModelTest, AMissingTensor) {
  std::string name;
  SpoilTensors([&](Tensors& tensors) {
    name = tensors.back().name;
    tensors.pop_back();
  });
  EXPECT_THAT(Run(), HasSubstr(name));
}

TEST_F(BadModelTest, AWronglyShapedTensor) {
  std::string name;
  SpoilTensors([&](Tensors& tensors) {
    name = tensors.front().name;
    tensors.front().shape = {1, static_cast<int64_t>(tensors.front().bytes.size() / 4)};
  });
  EXPECT_THAT(Run(), HasSubstr(name));
}

TEST_F(BadModelTest, TruncatedWeights) {
  std::filesystem::resize_file(weights(), std::filesystem::file_size(weights()) / 2);
  EXPECT_THAT(Run(), HasSubstr("model.safetensors"));
}

TEST_F(BadModelTest, WeightsWithoutAHeader) {
  WriteFile(weights(), "abc");
  EXPECT_THAT(Run(), HasSubstr("model.safetensors"));
}

TEST_F(BadModelTest, OverlappingTensors) {
  WriteFile(weights(), SafetensorsFile(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                                       std::string(12, '\0')));
  EXPECT_THAT(Run(), HasSubstr("overlap"));
}

TEST_F(BadModelTest, NoSuchDirectory) {
  std::filesystem::remove_all(directory_.path());
  EXPECT_THAT(Run(), HasSubstr(directory_.path().string()));
}

}  // namespace
}  // namespace evaserve

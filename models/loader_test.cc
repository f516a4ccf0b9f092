// What LoadModel() says of directories that are wrong. Each message names the file and the key or
// tensor, since an operator has nothing else to go by.

#include <filesystem>
#include <functional>

#include "gtest/gtest.h"
#include "kernels/serial_worker_pool.h"
#include "models/model.h"
#include "models/testing/random_model.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

constexpr char kQuery[] = "model.layers.1.self_attn.q_proj.weight";

class LoaderTest : public testing::Test {
 protected:
  LoaderTest() { WriteRandomModel(dir_.path(), TinyConfig()); }

  absl::Status LoadError(const LoadOptions& options = {}) {
    return LoadModel(dir_.path(), options, workers_).status();
  }

  // Rewrites config.json after a change.
  void ChangeConfig(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json json = ConfigJson(TinyConfig());
    change(json);
    WriteFile(dir_.path() / "config.json", json.dump());
  }

  // Rewrites model.safetensors after a change of one tensor.
  void ChangeTensor(const std::string& name, const std::function<void(TensorData&)>& change) {
    std::vector<TensorData> tensors = RandomTensors(TinyConfig());
    for (TensorData& tensor : tensors) {
      if (tensor.name == name) change(tensor);
    }
    WriteFile(dir_.path() / "model.safetensors", SafetensorsFile(tensors));
  }

  const TempDir dir_;
  SerialWorkerPool workers_;
};

TEST_F(LoaderTest, LoadsAGoodModel) {
  const auto model = LoadModel(dir_.path(), {}, workers_);
  ASSERT_TRUE(model.ok()) << model.status();
  const ModelInfo& info = (*model)->info();
  EXPECT_EQ(info.architecture, "evabyte");
  EXPECT_EQ(info.dtype, DType::kFloat32);
  EXPECT_EQ(info.num_pred_heads, 3);
  EXPECT_EQ(info.max_seq_len, 256);
  EXPECT_EQ(info.eos_tokens, std::vector<TokenId>{2});
  int64_t elements = 0;
  for (const TensorData& tensor : RandomTensors(TinyConfig())) elements += tensor.bytes.size() / 4;
  EXPECT_EQ(info.num_parameters, elements);
  EXPECT_GE(info.weight_bytes, elements * 4);
}

TEST_F(LoaderTest, LoadsShards) {
  std::vector<TensorData> tensors = RandomTensors(TinyConfig());
  const size_t half = tensors.size() / 2;
  nlohmann::json weight_map;
  for (size_t i = 0; i < tensors.size(); ++i) {
    weight_map[tensors[i].name] = i < half ? "one.safetensors" : "two.safetensors";
  }
  const auto all = std::span(tensors);
  WriteFile(dir_.path() / "one.safetensors", SafetensorsFile(all.first(half)));
  WriteFile(dir_.path() / "two.safetensors", SafetensorsFile(all.subspan(half)));
  WriteFile(dir_.path() / "model.safetensors.index.json",
            nlohmann::json{{"weight_map", weight_map}}.dump());
  std::filesystem::remove(dir_.path() / "model.safetensors");
  EXPECT_TRUE(LoadError().ok()) << LoadError();
}

TEST_F(LoaderTest, ReadsTheGenerationConfig) {
  WriteFile(dir_.path() / "generation_config.json",
            R"({"eos_token_id": [2, 11], "temperature": 0.7, "top_k": 20, "top_p": 0.9})");
  const auto model = LoadModel(dir_.path(), {}, workers_);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->info().eos_tokens, (std::vector<TokenId>{2, 11}));
  EXPECT_EQ((*model)->info().default_sampling.temperature, 0.7);
  EXPECT_EQ((*model)->info().default_sampling.top_k, 20);
  EXPECT_EQ((*model)->info().default_sampling.top_p, 0.9);
}

TEST_F(LoaderTest, TheOptionsChooseTheType) {
  const auto model = LoadModel(dir_.path(), {.dtype = DType::kBFloat16}, workers_);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->info().dtype, DType::kBFloat16);
}

TEST_F(LoaderTest, NamesAMissingConfig) {
  std::filesystem::remove(dir_.path() / "config.json");
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kNotFound, "config.json"));
}

TEST_F(LoaderTest, NamesABrokenConfig) {
  WriteFile(dir_.path() / "config.json", "{\"model_type\": \"evabyte\",");
  EXPECT_THAT(LoadError(), IsError(kInvalid, "config.json", "JSON"));
}

TEST_F(LoaderTest, NamesAnUnknownArchitecture) {
  ChangeConfig([](nlohmann::json& json) { json["model_type"] = "llama"; });
  EXPECT_THAT(LoadError(),
              IsError(absl::StatusCode::kUnimplemented, "config.json", "llama", "evabyte"));
  ChangeConfig([](nlohmann::json& json) { json.erase("model_type"); });
  EXPECT_THAT(LoadError(), IsError(kInvalid, "config.json", "model_type"));
}

TEST_F(LoaderTest, NamesABrokenGenerationConfig) {
  WriteFile(dir_.path() / "generation_config.json", "[]");
  EXPECT_THAT(LoadError(), IsError(kInvalid, "generation_config.json"));
  WriteFile(dir_.path() / "generation_config.json", R"({"top_p": 0})");
  EXPECT_THAT(LoadError(), IsError(kInvalid, "generation_config.json", "top_p"));
}

TEST_F(LoaderTest, NamesMissingWeights) {
  std::filesystem::remove(dir_.path() / "model.safetensors");
  EXPECT_THAT(LoadError(), IsError(absl::StatusCode::kNotFound, "model.safetensors"));
}

TEST_F(LoaderTest, NamesAMissingTensor) {
  ChangeTensor(kQuery, [](TensorData& tensor) { tensor.name = "something else"; });
  EXPECT_THAT(LoadError(), IsError(kInvalid, "model.safetensors", kQuery, "missing"));
}

TEST_F(LoaderTest, NamesATensorOfAnotherShape) {
  ChangeTensor(kQuery, [](TensorData& tensor) { tensor.shape = {24, 96}; });
  EXPECT_THAT(LoadError(), IsError(kInvalid, "model.safetensors", kQuery, "[24, 96]", "[48, 48]"));
}

TEST_F(LoaderTest, NamesATensorOfAnotherType) {
  ChangeTensor(kQuery, [](TensorData& tensor) {
    tensor.dtype = "F64";
    tensor.bytes.resize(tensor.bytes.size() * 2);
  });
  EXPECT_THAT(LoadError(), IsError(kInvalid, "model.safetensors", kQuery, "F64", "BF16"));
}

TEST_F(LoaderTest, RunsAFloat16CheckpointInAnotherTypeOnTheCpu) {
  EvaByteConfig config = TinyConfig();
  config.dtype = DType::kFloat16;
  WriteRandomModel(dir_.path(), config);
  EXPECT_THAT(LoadError(), IsError(kInvalid, "float16", "CPU", "bfloat16"));
  EXPECT_TRUE(LoadError({.dtype = DType::kBFloat16}).ok());
}

TEST_F(LoaderTest, NamesATruncatedFile) {
  const auto path = dir_.path() / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  EXPECT_THAT(LoadError(), IsError(kInvalid, "model.safetensors", "truncated"));
}

TEST_F(LoaderTest, NamesATensorOfALayerThatTheConfigDoesNotHave) {
  ChangeConfig([](nlohmann::json& json) { json["num_hidden_layers"] = 1; });
  EXPECT_THAT(LoadError(),
              IsError(kInvalid, "model.safetensors", "model.layers.1.", "num_hidden_layers 1"));
}

TEST_F(LoaderTest, IgnoresTensorsThatItDoesNotKnow) {
  std::vector<TensorData> tensors = RandomTensors(TinyConfig());
  tensors.push_back({"rotary_emb.inv_freq", "F32", {1}, "1234"});
  WriteFile(dir_.path() / "model.safetensors", SafetensorsFile(tensors));
  EXPECT_TRUE(LoadError().ok()) << LoadError();
}

TEST_F(LoaderTest, RefusesAStatePoolWithoutRoom) {
  EXPECT_THAT(LoadError({.state_bytes = 100}), IsError(kInvalid, "state_bytes", "100"));
}

}  // namespace
}  // namespace evaserve

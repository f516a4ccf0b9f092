#include "models/io/checkpoint.h"

#include "gtest/gtest.h"
#include "models/testing/safetensors_writer.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

class CheckpointTest : public testing::Test {
 protected:
  void WriteShard(const std::string& file, const std::string& tensor) {
    const float value = 1.f;
    const TensorData data[] = {MakeTensor(tensor, {1}, {&value, 1}, DType::kFloat32)};
    WriteFile(dir_.path() / file, SafetensorsFile(data));
  }

  void WriteIndex(std::string_view contents) {
    WriteFile(dir_.path() / "model.safetensors.index.json", contents);
  }

  absl::Status OpenError() { return Checkpoint::Open(dir_.path()).status(); }

  const TempDir dir_;
};

TEST_F(CheckpointTest, FindsTensorsInOneFile) {
  WriteShard("model.safetensors", "a");
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_NE(checkpoint->Find("a").view, nullptr);
  EXPECT_EQ(checkpoint->Find("a").file->filename(), "model.safetensors");
  EXPECT_EQ(checkpoint->Find("b").view, nullptr);
}

TEST_F(CheckpointTest, FindsTensorsInShards) {
  WriteShard("one.safetensors", "a");
  WriteShard("two.safetensors", "b");
  WriteIndex(R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->Find("a").file->filename(), "one.safetensors");
  EXPECT_EQ(checkpoint->Find("b").file->filename(), "two.safetensors");
  EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"a", "b"}));
}

TEST_F(CheckpointTest, NamesTheFileThatADirectoryWithoutWeightsLacks) {
  EXPECT_THAT(OpenError(), IsError(absl::StatusCode::kNotFound, "model.safetensors"));
}

TEST_F(CheckpointTest, NamesAMissingShard) {
  WriteShard("one.safetensors", "a");
  WriteIndex(R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  EXPECT_THAT(OpenError(), IsError(absl::StatusCode::kNotFound, "two.safetensors"));
}

TEST_F(CheckpointTest, NamesATensorThatItsShardLacks) {
  WriteShard("one.safetensors", "a");
  WriteShard("two.safetensors", "b");
  WriteIndex(R"({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}})");
  EXPECT_THAT(OpenError(), IsError(kInvalid, "one.safetensors", "\"b\""));
}

TEST_F(CheckpointTest, RefusesAnIndexThatIsMalformed) {
  WriteIndex("{");
  EXPECT_THAT(OpenError(), IsError(kInvalid, "model.safetensors.index.json", "JSON"));
  WriteIndex(R"({"metadata": {}})");
  EXPECT_THAT(OpenError(), IsError(kInvalid, "model.safetensors.index.json", "weight_map"));
  WriteIndex(R"({"weight_map": {"a": 3}})");
  EXPECT_THAT(OpenError(), IsError(kInvalid, "model.safetensors.index.json", "\"a\""));
}

TEST_F(CheckpointTest, RefusesAShardOutsideTheDirectory) {
  for (const char* name : {"../x.safetensors", "/etc/passwd", "..", "a/b.safetensors", ""}) {
    WriteIndex(std::string(R"({"weight_map": {"a": ")") + name + R"("}})");
    EXPECT_THAT(OpenError(), IsError(kInvalid, "index.json", "\"a\"", name));
  }
}

}  // namespace
}  // namespace evaserve

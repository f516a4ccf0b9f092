#include "models/io/tensor_reader.h"

#include "gtest/gtest.h"
#include "models/testing/safetensors_writer.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

TEST(TensorReaderTest, RefusesTensorsWithoutElements) {
  const TempDir directory;
  const TensorData data[] = {MakeTensor("no_rows", {0, 32}, {}, DType::kFloat32),
                             MakeTensor("scalar", {}, std::vector<float>{1}, DType::kFloat32)};
  WriteFile(directory.path() / "model.safetensors", SafetensorsFile(data));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  TensorReader no_rows(*checkpoint), scalar(*checkpoint);

  EXPECT_EQ(no_rows.View("no_rows", {0, 32}).data, nullptr);
  EXPECT_TRUE(scalar.Vector("scalar", {}).empty());

  EXPECT_THAT(no_rows.status(),
              IsError(absl::StatusCode::kInvalidArgument, "model.safetensors",
                      "tensor \"no_rows\": shape [0, 32]; allowed: one size or more, each"));
  EXPECT_THAT(scalar.status(), IsError(absl::StatusCode::kInvalidArgument, "\"scalar\": shape []"));
}

}  // namespace
}  // namespace evaserve

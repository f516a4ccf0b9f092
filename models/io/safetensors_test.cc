#include "models/io/safetensors.h"

#include <cstring>

#include "gtest/gtest.h"
#include "models/testing/safetensors_writer.h"
#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

class SafetensorsTest : public testing::Test {
 protected:
  absl::Status OpenError(std::string_view contents) {
    WriteFile(path_, contents);
    return Safetensors::Open(path_).status();
  }

  absl::Status HeaderError(std::string_view header, size_t data_bytes) {
    return OpenError(SafetensorsFile(header, std::string(data_bytes, 'x')));
  }

  const TempDir dir_;
  const std::filesystem::path path_ = dir_.path() / "model.safetensors";
};

TEST_F(SafetensorsTest, ReadsWhatWasWritten) {
  const std::vector<float> values = {1.f, -2.f, 3.5f, 4.f, 5.f, 6.f};
  const TensorData tensors[] = {MakeTensor("a", {2, 3}, values, DType::kFloat32),
                                MakeTensor("b", {6}, values, DType::kBFloat16),
                                {"c", "I64", {0}, ""}};
  WriteFile(path_, SafetensorsFile(tensors));

  const auto file = Safetensors::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 3u);
  const TensorView* a = file->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->dtype, "F32");
  EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(a->bytes.data(), values.data(), a->bytes.size()), 0);
  EXPECT_EQ(file->Find("b")->bytes.size(), 12u);
  EXPECT_EQ(file->Find("d"), nullptr);
}

TEST_F(SafetensorsTest, AlignsDataThatTheFileDoesNot) {
  const std::string data(4, '\x40');
  WriteFile(path_,
            SafetensorsFile(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", data));
  ASSERT_NE(
      std::string_view(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})").size() % 4, 0u);

  const auto file = Safetensors::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto bytes = file->Find("a")->bytes;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 4, 0u);
  EXPECT_EQ(std::memcmp(bytes.data(), data.data(), 4), 0);
}

TEST_F(SafetensorsTest, NamesAMissingFile) {
  EXPECT_THAT(Safetensors::Open(path_).status(),
              IsError(absl::StatusCode::kNotFound, path_.string()));
}

TEST_F(SafetensorsTest, RefusesADirectory) {
  EXPECT_THAT(Safetensors::Open(dir_.path()).status(), IsError(kInvalid, "not a regular file"));
}

TEST_F(SafetensorsTest, RefusesAFileWithoutAHeader) {
  EXPECT_THAT(OpenError(""), IsError(kInvalid, "model.safetensors", "truncated"));
  EXPECT_THAT(OpenError("1234567"), IsError(kInvalid, "model.safetensors", "truncated"));
}

TEST_F(SafetensorsTest, RefusesAHeaderThatEndsAfterTheFile) {
  const std::string file = SafetensorsFile("{}", "");
  EXPECT_THAT(OpenError(file.substr(0, file.size() - 1)), IsError(kInvalid, "truncated"));
}

TEST_F(SafetensorsTest, RefusesAHeaderAboveTheLimit) {
  EXPECT_THAT(OpenError(std::string(8, '\xff') + "{}"), IsError(kInvalid, "header"));
}

TEST_F(SafetensorsTest, RefusesAHeaderThatIsNoJsonObject) {
  EXPECT_THAT(HeaderError("{\"a\": ", 0), IsError(kInvalid, "not valid JSON"));
  EXPECT_THAT(HeaderError("[1, 2]", 0), IsError(kInvalid, "not a JSON object"));
}

TEST_F(SafetensorsTest, RefusesANameThatComesTwice) {
  const char* header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                           "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
  EXPECT_THAT(HeaderError(header, 2), IsError(kInvalid, "\"a\" comes twice"));
}

TEST_F(SafetensorsTest, RefusesAnUnknownType) {
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4),
              IsError(kInvalid, "\"a\"", "F31"));
}

TEST_F(SafetensorsTest, RefusesATensorWithoutItsFields) {
  EXPECT_THAT(HeaderError(R"({"a":3})", 0), IsError(kInvalid, "\"a\""));
  EXPECT_THAT(HeaderError(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4),
              IsError(kInvalid, "\"a\"", "dtype"));
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4),
              IsError(kInvalid, "\"a\"", "shape"));
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
              IsError(kInvalid, "\"a\"", "shape"));
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4),
              IsError(kInvalid, "\"a\"", "data_offsets"));
}

TEST_F(SafetensorsTest, RefusesDataBeyondTheFile) {
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7),
              IsError(kInvalid, path_.string(), "\"a\"", "truncated"));
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})", 8),
              IsError(kInvalid, "\"a\"", "[8, 4]"));
}

TEST_F(SafetensorsTest, RefusesAShapeThatDoesNotFitItsData) {
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
              IsError(kInvalid, "\"a\"", "[3]", "8 bytes"));
}

TEST_F(SafetensorsTest, RefusesAShapeWhoseSizeOverflows) {
  const char* header = R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],
                                "data_offsets":[0,0]}})";
  EXPECT_THAT(HeaderError(header, 0), IsError(kInvalid, "\"a\""));
}

TEST_F(SafetensorsTest, RefusesDataThatOverlap) {
  const char* header = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                           "b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})";
  EXPECT_THAT(HeaderError(header, 7), IsError(kInvalid, "\"b\"", "overlap"));
}

TEST_F(SafetensorsTest, RefusesHoles) {
  const char* header = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                           "b":{"dtype":"U8","shape":[2],"data_offsets":[5,7]}})";
  EXPECT_THAT(HeaderError(header, 7), IsError(kInvalid, "\"b\"", "hole"));
  EXPECT_THAT(HeaderError(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 6),
              IsError(kInvalid, "2 bytes after"));
}

}  // namespace
}  // namespace evaserve

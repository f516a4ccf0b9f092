#include "server/rpc/bounded_decompression.h"

#include <grpc/slice.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

namespace evaserve {
namespace {

constexpr int kDeflate = 15;
constexpr int kGzip = 31;

std::string Compress(const std::string& text, int window_bits) {
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY);
  std::string compressed(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(compressed.data());
  stream.avail_out = static_cast<uInt>(compressed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  compressed.resize(stream.total_out);
  deflateEnd(&stream);
  return compressed;
}

std::string TextOf(const grpc_slice_buffer& buffer) {
  std::string text;
  for (size_t i = 0; i < buffer.count; ++i) {
    text.append(reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(buffer.slices[i])),
                GRPC_SLICE_LENGTH(buffer.slices[i]));
  }
  return text;
}

class BoundedDecompressionTest : public ::testing::Test {
 protected:
  BoundedDecompressionTest() {
    grpc_slice_buffer_init(&input_);
    grpc_slice_buffer_init(&output_);
  }
  ~BoundedDecompressionTest() override {
    grpc_slice_buffer_destroy(&input_);
    grpc_slice_buffer_destroy(&output_);
    LimitDecompression(std::numeric_limits<int64_t>::max());
  }

  // What becomes of `compressed`, given in slices of `slice_bytes`.
  std::optional<std::string> Decompress(grpc_compression_algorithm algorithm,
                                        const std::string& compressed, size_t slice_bytes = 1000) {
    for (size_t i = 0; i < compressed.size(); i += slice_bytes) {
      const size_t size = std::min(slice_bytes, compressed.size() - i);
      // Not shared between slices: a sanitizer sees what is read beyond their end.
      grpc_slice_buffer_add(&input_, grpc_slice_from_copied_buffer(compressed.data() + i, size));
    }
    if (grpc_msg_decompress(algorithm, &input_, &output_) == 0) return std::nullopt;
    return TextOf(output_);
  }

  grpc_slice_buffer input_;
  grpc_slice_buffer output_;
};

// Random enough for many blocks, and for slices that end anywhere.
std::string Text(size_t size) {
  std::string text;
  for (uint32_t x = 1; text.size() < size; x = x * 1664525 + 1013904223) {
    text.push_back(static_cast<char>(x >> 26));
  }
  return text;
}

TEST_F(BoundedDecompressionTest, GivesWhatWasCompressed) {
  for (const size_t size : {0, 1, 64 << 10, 300'000}) {
    for (const size_t slice_bytes : {1, 7, 100'000}) {
      const std::string text = Text(size);
      EXPECT_EQ(Decompress(GRPC_COMPRESS_GZIP, Compress(text, kGzip), slice_bytes), text) << size;
      grpc_slice_buffer_reset_and_unref(&input_);
      grpc_slice_buffer_reset_and_unref(&output_);
      EXPECT_EQ(Decompress(GRPC_COMPRESS_DEFLATE, Compress(text, kDeflate), slice_bytes), text);
      grpc_slice_buffer_reset_and_unref(&input_);
      grpc_slice_buffer_reset_and_unref(&output_);
    }
  }
}

TEST_F(BoundedDecompressionTest, LeavesWhatIsNotCompressed) {
  EXPECT_EQ(Decompress(GRPC_COMPRESS_NONE, "as it is", 3), "as it is");
}

TEST_F(BoundedDecompressionTest, StopsOneByteAboveTheLimit) {
  LimitDecompression(1'000'000);
  const auto text = Decompress(GRPC_COMPRESS_GZIP, Compress(std::string(50'000'000, 'a'), kGzip));
  ASSERT_TRUE(text);
  EXPECT_EQ(text->size(), 1'000'001);
}

TEST_F(BoundedDecompressionTest, InflatesAllThatTheLimitAllows) {
  LimitDecompression(1'000'000);
  const std::string text(1'000'000, 'a');
  EXPECT_EQ(Decompress(GRPC_COMPRESS_GZIP, Compress(text, kGzip)), text);
}

TEST_F(BoundedDecompressionTest, RefusesWhatIsNotCompressedInThatWay) {
  const std::string gzip = Compress(Text(300'000), kGzip);
  std::string changed = gzip;
  changed[changed.size() - 5] ^= 1;  // of the checksum
  for (const std::string& bad :
       {std::string("nothing"), gzip.substr(0, gzip.size() / 2), changed, std::string()}) {
    grpc_slice_buffer_reset_and_unref(&input_);
    EXPECT_EQ(Decompress(GRPC_COMPRESS_GZIP, bad), std::nullopt);
    EXPECT_EQ(output_.length, 0);
  }
  EXPECT_EQ(Decompress(GRPC_COMPRESS_ALGORITHMS_COUNT, gzip), std::nullopt);
}

TEST_F(BoundedDecompressionTest, LeavesWhatWasThereBeforeAnError) {
  grpc_slice_buffer_add(&output_, grpc_slice_from_static_string("before"));
  EXPECT_EQ(Decompress(GRPC_COMPRESS_GZIP, Compress(Text(300'000), kGzip).substr(0, 5'000)),
            std::nullopt);
  EXPECT_EQ(TextOf(output_), "before");
}

}  // namespace
}  // namespace evaserve

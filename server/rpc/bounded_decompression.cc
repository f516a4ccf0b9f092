#include "server/rpc/bounded_decompression.h"

#include <grpc/slice.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <limits>

namespace evaserve {
namespace {

constexpr int kZlibWindow = 15;
constexpr int kGzip = 16;  // added to the window
constexpr size_t kBlockBytes = 64 << 10;

std::atomic<size_t> max_bytes = std::numeric_limits<size_t>::max() - 1;

// Inflates the slices of one message.
class Inflater {
 public:
  explicit Inflater(int window_bits) { is_open_ = inflateInit2(&stream_, window_bits) == Z_OK; }
  ~Inflater() {
    if (is_open_) inflateEnd(&stream_);
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Whether the message came to its end or to more than `limit` bytes.
  bool Inflate(const grpc_slice_buffer& input, size_t limit, grpc_slice_buffer& output) {
    for (size_t i = 0; is_open_ && i < input.count && !is_over(limit); ++i) {
      stream_.next_in = GRPC_SLICE_START_PTR(input.slices[i]);
      stream_.avail_in = static_cast<uInt>(GRPC_SLICE_LENGTH(input.slices[i]));
      if (!InflateSlice(limit, output)) return false;
    }
    return is_open_ && is_over(limit);
  }

 private:
  bool is_over(size_t limit) const { return has_ended_ || stream_.total_out > limit; }

  bool InflateSlice(size_t limit, grpc_slice_buffer& output) {
    bool is_block_full = true;
    while ((stream_.avail_in > 0 || is_block_full) && !is_over(limit)) {
      grpc_slice block = grpc_slice_malloc(std::min(kBlockBytes, limit + 1 - stream_.total_out));
      stream_.next_out = GRPC_SLICE_START_PTR(block);
      stream_.avail_out = static_cast<uInt>(GRPC_SLICE_LENGTH(block));
      const int result = inflate(&stream_, Z_NO_FLUSH);
      is_block_full = stream_.avail_out == 0;
      GRPC_SLICE_SET_LENGTH(block, GRPC_SLICE_LENGTH(block) - stream_.avail_out);
      grpc_slice_buffer_add(&output, block);
      if (result == Z_STREAM_END) has_ended_ = true;
      if (result < 0 && result != Z_BUF_ERROR) return false;
    }
    return true;
  }

  z_stream stream_{};
  bool is_open_ = false;
  bool has_ended_ = false;
};

void CopySlices(const grpc_slice_buffer& input, grpc_slice_buffer& output) {
  for (size_t i = 0; i < input.count; ++i) {
    grpc_slice_buffer_add(&output, grpc_slice_ref(input.slices[i]));
  }
}

bool Decompress(grpc_compression_algorithm algorithm, const grpc_slice_buffer& input,
                grpc_slice_buffer& output) {
  switch (algorithm) {
    case GRPC_COMPRESS_NONE:
      CopySlices(input, output);
      return true;
    case GRPC_COMPRESS_DEFLATE:
      return Inflater(kZlibWindow).Inflate(input, max_bytes, output);
    case GRPC_COMPRESS_GZIP:
      return Inflater(kZlibWindow + kGzip).Inflate(input, max_bytes, output);
    case GRPC_COMPRESS_ALGORITHMS_COUNT:
      break;
  }
  return false;
}

}  // namespace

void LimitDecompression(int64_t bytes) { max_bytes = static_cast<size_t>(bytes); }

}  // namespace evaserve

int grpc_msg_decompress(grpc_compression_algorithm algorithm, grpc_slice_buffer* input,
                        grpc_slice_buffer* output) {
  const size_t bytes_before = output->length;
  if (evaserve::Decompress(algorithm, *input, *output)) return 1;
  if (output->length > bytes_before) {
    grpc_slice_buffer_trim_end(output, output->length - bytes_before, nullptr);
  }
  return 0;
}

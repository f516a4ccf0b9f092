#pragma once

#include <grpc/impl/codegen/compression_types.h>
#include <grpc/slice_buffer.h>

#include <cstdint>

namespace evaserve {

// No message is inflated beyond `bytes`, and one byte that makes it too large, from now on and in
// the whole process. Thread-safe; before the first call there is no limit.
//
// gRPC 1.51 inflates a message whole before it looks at its size, so a compressed message of the
// allowed size would take a thousand times its memory.
void LimitDecompression(int64_t bytes);

}  // namespace evaserve

// Inflates `input` and adds the result to `output`, or what of it is below the limit: gRPC then
// refuses a message of that size. 0, with `output` as it was, for what is not compressed in that
// way.
//
// Has the place of the function of this name in the shared library of gRPC, which calls it for
// every compressed message. That is not its public interface: a test of the whole server
// (tests/conformance/test_hostile_calls.py) shows that it is used.
__attribute__((visibility("default"))) int grpc_msg_decompress(grpc_compression_algorithm algorithm,
                                                               grpc_slice_buffer* input,
                                                               grpc_slice_buffer* output);

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/open_inference.pb.h"

namespace evaserve {

inline constexpr char kTextInput[] = "text_input";
inline constexpr int64_t kMaxInferBatch = 1024;

// The elements of the request's one input, `text_input` BYTES [n] or [n, 1] with
// 1 <= n <= kMaxInferBatch, each at least a byte, from raw or typed contents. The views are into
// `request`. InvalidArgument names the tensor, what came and what is allowed.
absl::StatusOr<std::vector<std::string_view>> DecodeTextInput(
    const inference::ModelInferRequest& request);

// The raw contents of tensor `name` as a list of byte strings: each a 4-byte little-endian length
// and that many bytes. InvalidArgument if that does not come out even with `num_elements`.
absl::StatusOr<std::vector<std::string_view>> DecodeRawBytes(std::string_view name,
                                                             std::string_view raw,
                                                             int64_t num_elements);

// Adds one element of BYTES to raw contents.
void AppendRawBytes(std::string_view element, std::string& raw);

// Add an output tensor and its raw contents.
void AddBytesOutput(const char* name, std::span<const std::string_view> elements,
                    inference::ModelInferResponse& response);
void AddFp64Output(const char* name, std::span<const double> elements,
                   inference::ModelInferResponse& response);
// `rows` have the same length: FP32 [rows, length].
void AddFp32Output(const char* name, std::span<const std::span<const float>> rows,
                   inference::ModelInferResponse& response);

}  // namespace evaserve

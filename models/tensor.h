#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace evaserve {

// Element types of tensors that come and go over the wire, by the names of the Open Inference
// Protocol.
enum class TensorType {
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes,  // an element is any number of bytes
};

inline constexpr int kNumTensorTypes = static_cast<int>(TensorType::kBytes) + 1;

// "BOOL", "UINT8", ...
const char* Name(TensorType type);
std::optional<TensorType> TensorTypeFromName(std::string_view name);

// Bytes of one element; 0 for kBytes.
int64_t ElementBytes(TensorType type);

// "[-1,3,8,8]", for messages.
std::string ShapeText(const std::vector<int64_t>& shape);

// What a model takes or gives. The first dimension is the batch; -1 stands for any number.
struct TensorSpec {
  std::string name;
  TensorType type = TensorType::kFp32;
  std::vector<int64_t> shape;
  bool is_optional = false;         // of an input: a request may be without it
  std::vector<std::string> labels;  // of an output: what its elements stand for; or none
};

// A tensor whose elements somebody else keeps, row-major, little-endian. An element of kBytes comes
// after its length in 4 bytes.
struct InputTensor {
  std::vector<int64_t> shape;  // empty: an optional input that is not there
  std::string_view data;
};

// Likewise, and it keeps them.
struct OutputTensor {
  std::vector<int64_t> shape;
  std::string data;
};

// Element number `index` of a tensor whose type T is; its data need not be aligned.
template <typename T>
T ElementAt(const InputTensor& tensor, size_t index) {
  T value;
  std::memcpy(&value, tensor.data.data() + index * sizeof(value), sizeof(value));
  return value;
}

// The elements of a tensor of kBytes, which lie in `data`.
std::vector<std::string_view> BytesElements(std::string_view data);

// Adds an element to the data of one.
void AppendBytesElement(std::string_view element, std::string& data);

}  // namespace evaserve

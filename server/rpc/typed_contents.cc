#include "server/rpc/typed_contents.h"

#include <google/protobuf/repeated_field.h>

#include <limits>

#include "server/rpc/infer_codec.h"
#include "server/rpc/refuse.h"

namespace evaserve {
namespace {

using inference::InferTensorContents;

// Whether `field` holds `count` elements, as many as the shape has, and the other fields none.
absl::Status CheckCount(const char* field, int64_t count, const InferTensorContents& contents,
                        const TensorSpec& spec, int64_t num_elements) {
  const int64_t others = NumElements(contents) - count;
  if (count == num_elements && others == 0) return absl::OkStatus();
  return Refuse(spec.name, ": got ", count, " elements in ", field, " and ", others,
                " in others, its shape has ", num_elements, ", all for ", field);
}

template <typename T>
void AppendRaw(const T& element, std::string& raw) {
  raw.append(reinterpret_cast<const char*>(&element), sizeof(element));
}

// The elements of one datatype's field, each as a T.
template <typename T, typename Field>
absl::StatusOr<std::string> Convert(const char* field, const Field& elements,
                                    const InferTensorContents& contents, const TensorSpec& spec,
                                    int64_t num_elements) {
  absl::Status status = CheckCount(field, elements.size(), contents, spec, num_elements);
  if (!status.ok()) return status;
  std::string raw;
  raw.reserve(elements.size() * sizeof(T));
  for (const auto element : elements) {
    const T narrow = static_cast<T>(element);
    // NaN is no integer, and floats are not narrowed.
    if (std::numeric_limits<T>::is_integer && narrow != element) {
      return Refuse(spec.name, ": got ", element, " in ", field, ", allowed for ", Name(spec.type),
                    " is ", +std::numeric_limits<T>::min(), " to ", +std::numeric_limits<T>::max());
    }
    AppendRaw(narrow, raw);
  }
  return raw;
}

absl::StatusOr<std::string> ConvertBytes(const InferTensorContents& contents,
                                         const TensorSpec& spec, int64_t num_elements) {
  const auto& elements = contents.bytes_contents();
  absl::Status status = CheckCount("bytes_contents", elements.size(), contents, spec, num_elements);
  if (!status.ok()) return status;
  std::string raw;
  for (const std::string& element : elements) {
    AppendRawBytes(element, raw);
  }
  return raw;
}

}  // namespace

int64_t NumElements(const InferTensorContents& contents) {
  return int64_t{contents.bool_contents_size()} + contents.int_contents_size() +
         contents.int64_contents_size() + contents.uint_contents_size() +
         contents.uint64_contents_size() + contents.fp32_contents_size() +
         contents.fp64_contents_size() + contents.bytes_contents_size();
}

absl::StatusOr<std::string> TypedToRaw(const InferTensorContents& contents, const TensorSpec& spec,
                                       int64_t num_elements) {
  const auto ints = [&]<typename T>(T) {
    return Convert<T>("int_contents", contents.int_contents(), contents, spec, num_elements);
  };
  const auto uints = [&]<typename T>(T) {
    return Convert<T>("uint_contents", contents.uint_contents(), contents, spec, num_elements);
  };
  switch (spec.type) {
    case TensorType::kBool:
      return Convert<bool>("bool_contents", contents.bool_contents(), contents, spec, num_elements);
    case TensorType::kInt8:
      return ints(int8_t{});
    case TensorType::kInt16:
      return ints(int16_t{});
    case TensorType::kInt32:
      return ints(int32_t{});
    case TensorType::kInt64:
      return Convert<int64_t>("int64_contents", contents.int64_contents(), contents, spec,
                              num_elements);
    case TensorType::kUint8:
      return uints(uint8_t{});
    case TensorType::kUint16:
      return uints(uint16_t{});
    case TensorType::kUint32:
      return uints(uint32_t{});
    case TensorType::kUint64:
      return Convert<uint64_t>("uint64_contents", contents.uint64_contents(), contents, spec,
                               num_elements);
    case TensorType::kFp32:
      return Convert<float>("fp32_contents", contents.fp32_contents(), contents, spec,
                            num_elements);
    case TensorType::kFp64:
      return Convert<double>("fp64_contents", contents.fp64_contents(), contents, spec,
                             num_elements);
    case TensorType::kBytes:
      return ConvertBytes(contents, spec, num_elements);
    case TensorType::kFp16:
    case TensorType::kBf16:
      break;
  }
  return Refuse(spec.name, ": got no raw contents, ", Name(spec.type), " has no typed ones");
}

}  // namespace evaserve

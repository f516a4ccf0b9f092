#include "models/tensor.h"

#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace evaserve {
namespace {

struct TypeFacts {
  const char* name;
  int64_t element_bytes;
};

// In the order of TensorType.
constexpr TypeFacts kTypes[] = {{"BOOL", 1},   {"UINT8", 1}, {"UINT16", 2}, {"UINT32", 4},
                                {"UINT64", 8}, {"INT8", 1},  {"INT16", 2},  {"INT32", 4},
                                {"INT64", 8},  {"FP16", 2},  {"BF16", 2},   {"FP32", 4},
                                {"FP64", 8},   {"BYTES", 0}};
static_assert(std::size(kTypes) == kNumTensorTypes);

const TypeFacts& FactsOf(TensorType type) { return kTypes[static_cast<int>(type)]; }

}  // namespace

const char* Name(TensorType type) { return FactsOf(type).name; }

std::optional<TensorType> TensorTypeFromName(std::string_view name) {
  for (int i = 0; i < kNumTensorTypes; ++i) {
    if (name == kTypes[i].name) return static_cast<TensorType>(i);
  }
  return std::nullopt;
}

int64_t ElementBytes(TensorType type) { return FactsOf(type).element_bytes; }

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
}

std::vector<std::string_view> BytesElements(std::string_view data) {
  std::vector<std::string_view> elements;
  for (size_t at = 0; at < data.size();) {
    uint32_t length;
    std::memcpy(&length, data.data() + at, sizeof(length));
    elements.push_back(data.substr(at + sizeof(length), length));
    at += sizeof(length) + length;
  }
  return elements;
}

void AppendBytesElement(std::string_view element, std::string& data) {
  const auto length = static_cast<uint32_t>(element.size());
  data.append(reinterpret_cast<const char*>(&length), sizeof(length)).append(element);
}

}  // namespace evaserve

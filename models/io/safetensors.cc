#include "models/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/io/json_file.h"

namespace evaserve {
namespace {

// The limit of the reference implementation.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kLengthBytes = 8;

std::optional<int64_t> ElementBytes(std::string_view dtype) {
  constexpr std::pair<std::string_view, int64_t> kTypes[] = {
      {"F32", 4}, {"BF16", 2}, {"F16", 2},  {"F64", 8},     {"I64", 8},
      {"I32", 4}, {"I16", 2},  {"I8", 1},   {"U64", 8},     {"U32", 4},
      {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E5M2", 1}, {"F8_E4M3", 1}};
  for (const auto& [name, bytes] : kTypes) {
    if (name == dtype) return bytes;
  }
  return std::nullopt;
}

// The product of sizes and `element_bytes`, or nothing if it exceeds an int64_t.
std::optional<int64_t> TensorBytes(std::span<const int64_t> shape, int64_t element_bytes) {
  int64_t bytes = element_bytes;
  for (int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

// A JSON array of sizes, or nothing.
std::optional<std::vector<int64_t>> Sizes(const nlohmann::json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const nlohmann::json& size : *found) {
    if (!size.is_number_unsigned()) return std::nullopt;
    const uint64_t value = size.get<uint64_t>();
    if (value > uint64_t{std::numeric_limits<int64_t>::max()}) return std::nullopt;
    sizes.push_back(static_cast<int64_t>(value));
  }
  return sizes;
}

// `data` is what follows the header. The error names no file yet.
absl::StatusOr<TensorView> ParseTensor(const nlohmann::json& entry,
                                       std::span<const std::byte> data) {
  if (!entry.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) {
    return absl::InvalidArgumentError("no \"dtype\"");
  }
  TensorView tensor;
  tensor.dtype = dtype->get<std::string>();
  const std::optional<int64_t> element_bytes = ElementBytes(tensor.dtype);
  if (!element_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("unknown dtype \"", tensor.dtype, "\""));
  }
  std::optional<std::vector<int64_t>> shape = Sizes(entry, "shape");
  if (!shape) return absl::InvalidArgumentError("\"shape\" is not a list of sizes");
  tensor.shape = *std::move(shape);
  const std::optional<std::vector<int64_t>> offsets = Sizes(entry, "data_offsets");
  if (!offsets || offsets->size() != 2) {
    return absl::InvalidArgumentError("\"data_offsets\" is not a pair of offsets");
  }
  const int64_t begin = (*offsets)[0], end = (*offsets)[1];
  if (begin > end || end > static_cast<int64_t>(data.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("data_offsets [", begin, ", ", end, "] are not inside the file's ",
                     data.size(), " bytes of data: the file is truncated or damaged"));
  }
  if (TensorBytes(tensor.shape, *element_bytes) != end - begin) {
    return absl::InvalidArgumentError(absl::StrCat("shape ", ShapeText(tensor.shape), " of ",
                                                   tensor.dtype, " does not fit its ", end - begin,
                                                   " bytes"));
  }
  tensor.bytes = data.subspan(begin, end - begin);
  return tensor;
}

}  // namespace

std::string ShapeText(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ", "), "]");
}

absl::StatusOr<Safetensors> Safetensors::Open(const std::filesystem::path& path) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  Safetensors result(path, *std::move(file));
  if (absl::Status status = result.ParseHeader(); !status.ok()) return status;
  result.AlignData();
  return result;
}

const TensorView* Safetensors::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

absl::Status Safetensors::ParseHeader() {
  const std::span<const std::byte> bytes = file_.bytes();
  uint64_t header_bytes = 0;
  if (bytes.size() >= kLengthBytes) std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  if (header_bytes == 0 || header_bytes > kMaxHeaderBytes ||
      header_bytes > bytes.size() - kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_.string(), ": a header of ", header_bytes, " bytes in a file of ",
                     bytes.size(), ": the file is truncated or not in the safetensors format"));
  }
  const auto* header = reinterpret_cast<const char*>(bytes.data() + kLengthBytes);
  const absl::StatusOr<nlohmann::json> entries =
      ParseJsonObject({header, header_bytes}, absl::StrCat(path_.string(), ": header"));
  if (!entries.ok()) return entries.status();
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + header_bytes);
  for (const auto& [name, entry] : entries->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<TensorView> tensor = ParseTensor(entry, data);
    if (!tensor.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path_.string(), ": tensor \"", name, "\": ", std::string(tensor.status().message())));
    }
    tensors_.emplace(name, *std::move(tensor));
  }
  return CheckCoverage(data.size());
}

absl::Status Safetensors::CheckCoverage(size_t data_bytes) const {
  std::vector<std::pair<std::span<const std::byte>, const std::string*>> ranges;
  for (const auto& [name, tensor] : tensors_) ranges.emplace_back(tensor.bytes, &name);
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
  });
  const std::byte* data_end = file_.bytes().data() + file_.bytes().size();
  const std::byte* expected = data_end - data_bytes;
  for (const auto& [bytes, name] : ranges) {
    if (bytes.data() != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          path_.string(), ": tensor \"", *name, "\": its data ",
          bytes.data() < expected ? "overlap those of" : "leave a hole after", " its predecessor"));
    }
    expected = bytes.data() + bytes.size();
  }
  if (expected != data_end) {
    return absl::InvalidArgumentError(absl::StrCat(path_.string(), ": ", data_end - expected,
                                                   " bytes after the data of the last tensor"));
  }
  return absl::OkStatus();
}

void Safetensors::AlignData() {
  for (auto& [name, tensor] : tensors_) {
    const auto address = reinterpret_cast<uintptr_t>(tensor.bytes.data());
    if (address % ElementBytes(tensor.dtype).value_or(1) == 0) continue;
    auto copy = std::make_unique<std::byte[]>(tensor.bytes.size());
    std::memcpy(copy.get(), tensor.bytes.data(), tensor.bytes.size());
    tensor.bytes = {copy.get(), tensor.bytes.size()};
    copies_.push_back(std::move(copy));
  }
}

}  // namespace evaserve

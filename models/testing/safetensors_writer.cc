#include "models/testing/safetensors_writer.h"

#include <cstring>
#include <utility>

#include "nlohmann/json.hpp"

namespace evaserve {

TensorData MakeTensor(std::string name, std::vector<int64_t> shape, std::span<const float> values,
                      DType dtype) {
  const char* const dtypes[] = {"F32", "BF16", "F16"};  // as DType counts them
  TensorData tensor{std::move(name), dtypes[static_cast<int>(dtype)], std::move(shape),
                    std::string(values.size() * SizeOf(dtype), '\0')};
  for (size_t i = 0; i < values.size(); ++i) {
    StoreElement(tensor.bytes.data(), dtype, static_cast<int64_t>(i), values[i]);
  }
  return tensor;
}

std::string SafetensorsFile(std::span<const TensorData> tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const TensorData& tensor : tensors) {
    const size_t begin = data.size();
    data += tensor.bytes;
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return SafetensorsFile(text, data);
}

std::string SafetensorsFile(std::string_view header, std::string_view data) {
  const uint64_t header_bytes = header.size();
  std::string file(sizeof(header_bytes), '\0');
  std::memcpy(file.data(), &header_bytes, sizeof(header_bytes));
  file.append(header);
  file.append(data);
  return file;
}

}  // namespace evaserve

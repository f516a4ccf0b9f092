#include "models/io/tensor_reader.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "kernels/give_way.h"

namespace evaserve {
namespace {

constexpr size_t kElementsPerTurn = 4096;

std::optional<DType> WeightType(const std::string& name) {
  if (name == "F32") return DType::kFloat32;
  if (name == "BF16") return DType::kBFloat16;
  if (name == "F16") return DType::kFloat16;
  return std::nullopt;
}

}  // namespace

bool TensorReader::Has(const std::string& name) const {
  return checkpoint_.Find(prefix_ + name).view != nullptr;
}

void TensorReader::RequireAbsent(const std::string& name, const std::string& key) {
  if (!status_.ok() || !Has(name)) return;
  Fail(checkpoint_.root_file(), name,
       absl::StrCat("config.json has no place for it, by what it says of \"", key, "\""));
}

void TensorReader::RequireNoFurtherLayer(const std::string& prefix, int num_layers,
                                         const std::string& key) {
  status_.Update(CheckNoFurtherLayer(checkpoint_, prefix_ + prefix, num_layers, key));
}

std::vector<float> TensorReader::Vector(const std::string& name,
                                        const std::vector<int64_t>& shape) {
  const WeightView view = View(name, shape);
  if (!status_.ok()) return {};
  std::vector<float> values(view.out_features * view.in_features);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = LoadElement(view.data, view.dtype, static_cast<int64_t>(i));
    if (i % kElementsPerTurn == 0) GiveWay();
  }
  vector_bytes_ += static_cast<int64_t>(values.size() * sizeof(float));
  return values;
}

WeightView TensorReader::View(const std::string& name, const std::vector<int64_t>& shape) {
  if (!status_.ok()) return {};
  const Checkpoint::Tensor tensor = checkpoint_.Find(prefix_ + name);
  if (tensor.view == nullptr) {
    Fail(checkpoint_.root_file(), name, "missing");
    return {};
  }
  const std::optional<DType> dtype = WeightType(tensor.view->dtype);
  if (!dtype) {
    Fail(*tensor.file, name,
         absl::StrCat("dtype ", tensor.view->dtype, " is not supported; allowed: F32, BF16, F16"));
    return {};
  }
  if (tensor.view->shape != shape) {
    Fail(*tensor.file, name,
         absl::StrCat("shape ", ShapeText(tensor.view->shape), "; config.json asks for ",
                      ShapeText(shape)));
    return {};
  }
  int64_t elements = 1;
  for (int64_t size : shape) elements *= size;
  if (shape.empty() || elements == 0) {
    Fail(*tensor.file, name,
         absl::StrCat("shape ", ShapeText(shape), "; allowed: one size or more, each above 0"));
    return {};
  }
  num_parameters_ += elements;
  return {tensor.view->bytes.data(), *dtype, shape.front(), elements / shape.front()};
}

void TensorReader::Fail(const std::filesystem::path& file, const std::string& name,
                        const std::string& problem) {
  status_ = absl::InvalidArgumentError(
      absl::StrCat(file.string(), ": tensor \"", prefix_, name, "\": ", problem));
}

}  // namespace evaserve

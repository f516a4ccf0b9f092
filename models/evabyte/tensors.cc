#include "models/evabyte/tensors.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

std::optional<DType> WeightType(const std::string& name) {
  if (name == "F32") return DType::kFloat32;
  if (name == "BF16") return DType::kBFloat16;
  if (name == "F16") return DType::kFloat16;
  return std::nullopt;
}

std::vector<float> ToFloats(const WeightView& view) {
  std::vector<float> values(view.out_features * view.in_features);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = LoadElement(view.data, view.dtype, static_cast<int64_t>(i));
  }
  return values;
}

// Reads tensors one after another and keeps the first error, like JsonFields.
class Reader {
 public:
  explicit Reader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  const absl::Status& status() const { return status_; }
  int64_t num_parameters() const { return num_parameters_; }
  int64_t vector_bytes() const { return vector_bytes_; }

  std::vector<float> Vector(const std::string& name, const std::vector<int64_t>& shape) {
    const WeightView view = View(name, shape);
    if (!status_.ok()) return {};
    vector_bytes_ += view.out_features * view.in_features * int64_t{sizeof(float)};
    return ToFloats(view);
  }

  std::vector<float> Norm(const std::string& name, const EvaByteConfig& config) {
    std::vector<float> weight = Vector(name, {config.hidden_size});
    const float offset = config.norm_unit_offset ? 1.f : 0.f;
    for (float& w : weight) w += offset;
    return weight;
  }

  StackedMatrix Matrix(const std::vector<std::string>& names, int64_t rows, int64_t columns) {
    StackedMatrix parts;
    parts.reserve(names.size());
    for (const std::string& name : names) parts.push_back(View(name, {rows, columns}));
    return parts;
  }

 private:
  WeightView View(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status_.ok()) return {};
    const Checkpoint::Tensor tensor = checkpoint_.Find(name);
    if (tensor.view == nullptr) {
      Fail(checkpoint_.root_file(), name, "missing");
      return {};
    }
    const std::optional<DType> dtype = WeightType(tensor.view->dtype);
    if (!dtype) {
      Fail(
          *tensor.file, name,
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
    num_parameters_ += elements;
    return {tensor.view->bytes.data(), *dtype, shape.front(), elements / shape.front()};
  }

  void Fail(const std::filesystem::path& file, const std::string& name,
            const std::string& problem) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat(file.string(), ": tensor \"", name, "\": ", problem));
  }

  const Checkpoint& checkpoint_;
  absl::Status status_;
  int64_t num_parameters_ = 0;
  int64_t vector_bytes_ = 0;
};

EvaByteLayerTensors ReadLayer(Reader& reader, const EvaByteConfig& config,
                              const std::string& prefix) {
  const int64_t hidden = config.hidden_size, inter = config.intermediate_size;
  const std::vector<int64_t> head_vectors = {1, config.num_heads, 1, 1, config.head_dim()};
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  EvaByteLayerTensors layer;
  layer.attention_norm = reader.Norm(prefix + "input_layernorm.weight", config);
  layer.mlp_norm = reader.Norm(prefix + "post_attention_layernorm.weight", config);
  layer.mu = reader.Vector(attention + "adaptive_mu_k", head_vectors);
  layer.phi = reader.Vector(attention + "adaptive_phi", head_vectors);
  layer.qkv = reader.Matrix(
      {attention + "q_proj.weight", attention + "k_proj.weight", attention + "v_proj.weight"},
      hidden, hidden);
  layer.out = reader.Matrix({attention + "o_proj.weight"}, hidden, hidden);
  layer.gate_up = reader.Matrix({mlp + "gate_proj.weight", mlp + "up_proj.weight"}, inter, hidden);
  layer.down = reader.Matrix({mlp + "down_proj.weight"}, hidden, inter);
  return layer;
}

// A checkpoint with more layers than its config would load and answer nonsense.
absl::Status CheckNoFurtherLayer(const Checkpoint& checkpoint, int num_layers) {
  constexpr std::string_view kPrefix = "model.layers.";
  for (const std::string& name : checkpoint.names()) {
    if (!name.starts_with(kPrefix)) continue;
    int layer = 0;
    const size_t dot = std::min(name.find('.', kPrefix.size()), name.size());
    if (!absl::SimpleAtoi(name.substr(kPrefix.size(), dot - kPrefix.size()), &layer)) continue;
    if (layer < num_layers) continue;
    return absl::InvalidArgumentError(absl::StrCat(checkpoint.root_file().string(), ": tensor \"",
                                                   name, "\": config.json has num_hidden_layers ",
                                                   num_layers));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EvaByteTensors> ReadEvaByteTensors(const Checkpoint& checkpoint,
                                                  const EvaByteConfig& config) {
  Reader reader(checkpoint);
  EvaByteTensors tensors;
  tensors.embedding =
      reader.Vector("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  for (int i = 0; i < config.num_layers; ++i) {
    tensors.layers.push_back(ReadLayer(reader, config, absl::StrCat("model.layers.", i, ".")));
    if (!reader.status().ok()) return reader.status();
  }
  tensors.final_norm = reader.Norm("model.norm.weight", config);
  tensors.lm_head = reader.Matrix(
      {"lm_head.weight"}, int64_t{config.num_pred_heads} * config.vocab_size, config.hidden_size);
  if (!reader.status().ok()) return reader.status();
  if (absl::Status status = CheckNoFurtherLayer(checkpoint, config.num_layers); !status.ok()) {
    return status;
  }
  tensors.num_parameters = reader.num_parameters();
  tensors.vector_bytes = reader.vector_bytes();
  return tensors;
}

}  // namespace evaserve

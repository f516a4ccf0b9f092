#include "models/testing/random_model.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>

#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

class TensorMaker {
 public:
  TensorMaker(DType dtype, uint64_t seed) : dtype_(dtype), random_(seed) {}

  void Add(const std::string& name, std::vector<int64_t> shape, float deviation, float mean = 0) {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    std::normal_distribution<float> normal(mean, deviation);
    std::vector<float> values(count);
    std::generate(values.begin(), values.end(), [&] { return normal(random_); });
    tensors_.push_back(MakeTensor(name, std::move(shape), values, dtype_));
  }

  std::vector<TensorData> Take() { return std::move(tensors_); }

 private:
  const DType dtype_;
  std::mt19937_64 random_;
  std::vector<TensorData> tensors_;
};

void AddLayer(TensorMaker& maker, const EvaByteConfig& config, const std::string& prefix) {
  const int64_t hidden = config.hidden_size, inter = config.intermediate_size;
  const float norm = config.norm_unit_offset ? 0.f : 1.f;
  const float from_hidden = 1.f / std::sqrt(static_cast<float>(hidden));
  const float from_inter = 1.f / std::sqrt(static_cast<float>(inter));
  const float from_head = 1.f / std::sqrt(static_cast<float>(config.head_dim()));
  maker.Add(prefix + "input_layernorm.weight", {hidden}, 0.1f, norm);
  maker.Add(prefix + "post_attention_layernorm.weight", {hidden}, 0.1f, norm);
  for (const char* name : {"q", "k", "v", "o"}) {
    maker.Add(prefix + "self_attn." + name + "_proj.weight", {hidden, hidden}, from_hidden);
  }
  for (const char* name : {"mu_k", "phi"}) {
    maker.Add(prefix + "self_attn.adaptive_" + name, {1, config.num_heads, 1, 1, config.head_dim()},
              from_head);
  }
  maker.Add(prefix + "mlp.gate_proj.weight", {inter, hidden}, from_hidden);
  maker.Add(prefix + "mlp.up_proj.weight", {inter, hidden}, from_hidden);
  maker.Add(prefix + "mlp.down_proj.weight", {hidden, inter}, from_inter);
}

nlohmann::json RopeScalingJson(const EvaByteConfig& config) {
  if (config.rope_scaling == RopeScaling::kNone) return nullptr;
  const bool linear = config.rope_scaling == RopeScaling::kLinear;
  return {{"type", linear ? "linear" : "dynamic"}, {"factor", config.rope_factor}};
}

}  // namespace

EvaByteConfig TinyConfig() {
  EvaByteConfig config;
  config.hidden_size = 48;
  config.intermediate_size = 80;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_pred_heads = 3;
  config.window = 24;
  config.chunk = 4;
  config.max_positions = 256;
  config.norm_unit_offset = true;
  return config;
}

EvaByteConfig SizeSConfig() {
  EvaByteConfig config;
  config.hidden_size = 256;
  config.intermediate_size = 704;
  config.num_layers = 6;
  config.num_heads = 4;
  config.num_pred_heads = 8;
  config.window = 256;
  config.chunk = 16;
  config.max_positions = 65536;
  config.rms_norm_eps = 1e-5f;
  config.norm_unit_offset = true;
  config.rope_theta = 100000.f;
  return config;
}

nlohmann::json ConfigJson(const EvaByteConfig& config) {
  nlohmann::json json = nlohmann::json::parse(R"({
    "architectures": ["EvaByteForCausalLM"], "model_type": "evabyte", "attention_class": "eva",
    "num_chunks": null, "hidden_act": "silu", "attention_bias": false,
    "tie_word_embeddings": false, "fp32_ln": false, "fp32_logits": true, "fp32_skip_add": true,
    "mixedp_attn": true, "return_dict": false, "use_cache": true, "pad_token_id": 0,
    "bos_token_id": 1})");
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.num_layers;
  json["num_attention_heads"] = config.num_heads;
  json["num_pred_heads"] = config.num_pred_heads;
  json["window_size"] = config.window;
  json["chunk_size"] = config.chunk;
  json["max_position_embeddings"] = config.max_positions;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["norm_add_unit_offset"] = config.norm_unit_offset;
  json["rope_theta"] = config.rope_theta;
  json["rope_scaling"] = RopeScalingJson(config);
  json["torch_dtype"] = std::string(Name(config.dtype));
  json["eos_token_id"] = config.eos_tokens;
  return json;
}

std::vector<TensorData> RandomTensors(const EvaByteConfig& config, uint64_t seed) {
  const int64_t hidden = config.hidden_size, vocab = config.vocab_size;
  TensorMaker maker(config.dtype, seed);
  maker.Add("model.embed_tokens.weight", {vocab, hidden}, 1.f);
  for (int i = 0; i < config.num_layers; ++i) {
    AddLayer(maker, config, "model.layers." + std::to_string(i) + ".");
  }
  maker.Add("model.norm.weight", {hidden}, 0.1f, config.norm_unit_offset ? 0.f : 1.f);
  maker.Add("lm_head.weight", {config.num_pred_heads * vocab, hidden},
            2.f / std::sqrt(static_cast<float>(hidden)));
  return maker.Take();
}

void WriteRandomModel(const std::filesystem::path& directory, const EvaByteConfig& config,
                      uint64_t seed) {
  WriteFile(directory / "config.json", ConfigJson(config).dump(2));
  WriteFile(directory / "model.safetensors", SafetensorsFile(RandomTensors(config, seed)));
}

}  // namespace evaserve

#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/eva_translation/testing/random_translation.h"
#include "models/testing/reference_layers.h"

namespace evaserve {

// fairseq's TransformerDecoder in plain loops and float64, all tokens of one sentence at once.
class ReferenceDecoder {
 public:
  using Values = std::vector<double>;  // rows, one after the other

  ReferenceDecoder(const nlohmann::json& json, const RandomTranslation& tensors)
      : json_(json), config_(json.at("decoder")), tensors_(tensors) {}

  // Logits [tokens, vocab_size] from what the encoder says of the source, [any, its size].
  Values Logits(std::span<const float> encoded, const std::vector<int>& tokens) const {
    const Values source(encoded.begin(), encoded.end());
    const bool before = config_.value("normalize_before", false);
    Values x = Embed(tokens);
    for (int i = 0; i < config_.at("num_hidden_layers"); ++i) {
      const std::string layer = "decoder.layers." + std::to_string(i) + ".";
      const auto sublayer = [&](const std::string& norm,
                                const std::function<Values(const Values&)>& f) {
        Values y = f(before ? Norm(layer + norm, x) : x);
        for (size_t j = 0; j < y.size(); ++j) y[j] += x[j];
        x = before ? y : Norm(layer + norm, y);
      };
      sublayer("self_attn_layer_norm.",
               [&](const Values& y) { return Attend(layer + "self_attn.", y, y, true); });
      sublayer("encoder_attn_layer_norm.",
               [&](const Values& y) { return Attend(layer + "encoder_attn.", y, source, false); });
      sublayer("final_layer_norm.", [&](const Values& y) {
        return Linear(layer + "fc2.", Activated(Linear(layer + "fc1.", y)));
      });
    }
    if (before) x = Norm("decoder.layer_norm.", x);
    return Product(x, tensors_.at(OutputName()).values);
  }

 private:
  std::string EmbeddingName() const {
    return json_.value("share_all_embeddings", false) ? "encoder.embed_tokens.weight"
                                                      : "decoder.embed_tokens.weight";
  }
  std::string OutputName() const {
    return tensors_.contains("decoder.output_projection.weight")
               ? "decoder.output_projection.weight"
               : EmbeddingName();
  }

  Values Embed(const std::vector<int>& tokens) const {
    const int64_t size = config_.at("hidden_size");
    const std::vector<float>& embedding = tensors_.at(EmbeddingName()).values;
    const nlohmann::json& told = config_.at("embed_scale");
    const double scale = told.is_number() ? told.get<double>() : std::sqrt(double(size));
    Values x;
    for (size_t i = 0; i < tokens.size(); ++i) {
      for (int64_t j = 0; j < size; ++j) {
        // The first token has the position after <pad>'s number, 1.
        x.push_back(scale * embedding[tokens[i] * size + j] +
                    Position(static_cast<int64_t>(i) + 2, j, size));
      }
    }
    return config_.value("layernorm_embedding", false) ? Norm("decoder.layernorm_embedding.", x)
                                                       : x;
  }

  double Position(int64_t position, int64_t j, int64_t size) const {
    if (config_.value("positions", std::string()) == "learned") {
      return tensors_.at("decoder.embed_positions.weight").values[position * size + j];
    }
    return ReferenceSinusoid(position, j, size);
  }

  Values Norm(const std::string& prefix, const Values& x) const {
    return ReferenceNorm(x, tensors_.at(prefix + "weight").values,
                         tensors_.at(prefix + "bias").values);
  }

  Values Activated(Values x) const {
    return ReferenceActivation(std::move(x), config_.at("hidden_act"));
  }

  // As many outputs as rows of `weight`, whose columns are config_'s hidden_size.
  Values Product(const Values& x, const std::vector<float>& weight) const {
    const size_t in = config_.at("hidden_size");
    Values y;
    for (size_t row = 0; row < x.size(); row += in) {
      for (size_t o = 0; o < weight.size(); o += in) {
        double sum = 0;
        for (size_t i = 0; i < in; ++i) sum += x[row + i] * weight[o + i];
        y.push_back(sum);
      }
    }
    return y;
  }

  Values Linear(const std::string& prefix, const Values& x) const {
    const RandomTensor& weight = tensors_.at(prefix + "weight");
    const std::vector<float>& bias = tensors_.at(prefix + "bias").values;
    const int64_t out = weight.shape[0], in = weight.shape[1];
    Values y;
    for (size_t row = 0; row < x.size(); row += in) {
      for (int64_t o = 0; o < out; ++o) {
        double sum = bias[o];
        for (int64_t i = 0; i < in; ++i) sum += x[row + i] * weight.values[o * in + i];
        y.push_back(sum);
      }
    }
    return y;
  }

  Values Attend(const std::string& prefix, const Values& x, const Values& seen,
                bool is_causal) const {
    const int64_t size = config_.at("hidden_size"), heads = config_.at("num_attention_heads");
    const int64_t head_dim = size / heads;
    const Values q = Linear(prefix + "q_proj.", x), k = Linear(prefix + "k_proj.", seen),
                 v = Linear(prefix + "v_proj.", seen);
    const auto num_queries = std::ssize(q) / size, num_keys = std::ssize(k) / size;
    Values out(q.size());
    for (int64_t i = 0; i < num_queries; ++i) {
      for (int64_t column = 0; column < size; column += head_dim) {
        Values weights;
        for (int64_t j = 0; j < (is_causal ? i + 1 : num_keys); ++j) {
          double dot = 0;
          for (int64_t d = column; d < column + head_dim; ++d)
            dot += q[i * size + d] * k[j * size + d];
          weights.push_back(std::exp(dot / std::sqrt(double(head_dim))));
        }
        double sum = 0;
        for (double weight : weights) sum += weight;
        for (int64_t j = 0; j < std::ssize(weights); ++j) {
          for (int64_t d = column; d < column + head_dim; ++d) {
            out[i * size + d] += weights[j] / sum * v[j * size + d];
          }
        }
      }
    }
    return Linear(prefix + "out_proj.", out);
  }

  const nlohmann::json& json_;
  const nlohmann::json& config_;
  const RandomTranslation& tensors_;
};

}  // namespace evaserve

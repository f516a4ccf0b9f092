// The whole model against plain loops in float64, in every layout that a config can ask for; only
// one of them has golden data.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "kernels/landmarks.h"
#include "kernels/relative_bias.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/window_attend.h"
#include "models/eva_encoder/eva_encoder_model.h"
#include "models/eva_encoder/testing/random_encoder.h"
#include "models/eva_encoder/testing/requests.h"
#include "models/testing/golden.h"
#include "models/testing/reference_layers.h"

namespace evaserve {
namespace {

using Values = std::vector<double>;  // [tokens, size]

std::vector<float> Floats(const Values& x) { return {x.begin(), x.end()}; }

// Of one row of tokens.
class Reference {
 public:
  Reference(const nlohmann::json& json, const RandomEncoder& tensors)
      : json_(json), tensors_(tensors) {}

  Values Hidden(const std::vector<int64_t>& tokens) const {
    const bool before = json_.at("normalize_before");
    Values x = Embed(tokens);
    for (int i = 0; i < json_.at("num_hidden_layers"); ++i) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      const auto attend = [&](const Values& y) { return Attend(layer + "self_attn.attn.", y); };
      const auto feed = [&](const Values& y) {
        return Linear(layer + "fc2.", Activated(Linear(layer + "fc1.", y)));
      };
      x = Sublayer(x, before, layer + "self_attn_layer_norm.", attend);
      x = Sublayer(x, before, layer + "final_layer_norm.", feed);
    }
    return before ? Norm("layer_norm.", x) : x;
  }

  Values Logits(const Values& hidden) const {
    const Values x = Norm("lm_head.layer_norm.", Activated(Linear("lm_head.dense.", hidden)));
    return Product(x, tensors_.at("embed_tokens.weight"), tensors_.at("lm_head.bias"));
  }

 private:
  Values Embed(const std::vector<int64_t>& tokens) const {
    const int64_t size = json_.at("hidden_size"), padding = json_.at("padding_idx");
    const double scale = json_.at("embed_scale").is_number() ? json_.at("embed_scale").get<double>()
                                                             : std::sqrt(double(size));
    const std::vector<float>& embedding = tensors_.at("embed_tokens.weight").values;
    Values x;
    for (size_t i = 0; i < tokens.size(); ++i) {
      for (int64_t j = 0; j < size; ++j) {
        x.push_back(scale * embedding[tokens[i] * size + j] +
                    Position(padding + 1 + static_cast<int64_t>(i), j, size));
      }
    }
    return json_.value("layernorm_embedding", false) ? Norm("layernorm_embedding.", x) : x;
  }

  double Position(int64_t position, int64_t j, int64_t size) const {
    if (json_.at("positions").get<std::string>() == "learned") {
      return tensors_.at("embed_positions.weight").values[position * size + j];
    }
    return ReferenceSinusoid(position, j, size);
  }

  Values Sublayer(const Values& x, bool before, const std::string& norm,
                  const std::function<Values(const Values&)>& layer) const {
    Values y = layer(before ? Norm(norm, x) : x);
    for (size_t i = 0; i < y.size(); ++i) y[i] += x[i];
    return before ? y : Norm(norm, y);
  }

  Values Norm(const std::string& prefix, const Values& x) const {
    return ReferenceNorm(x, tensors_.at(prefix + "weight").values,
                         tensors_.at(prefix + "bias").values);
  }

  Values Activated(Values x) const {
    return ReferenceActivation(std::move(x), json_.at("hidden_act"));
  }

  static Values Product(const Values& x, const RandomTensor& weight, const RandomTensor& bias) {
    const int64_t out = weight.shape[0], in = weight.shape[1];
    Values y;
    for (size_t row = 0; row < x.size(); row += in) {
      for (int64_t o = 0; o < out; ++o) {
        double sum = bias.values[o];
        for (int64_t i = 0; i < in; ++i) sum += x[row + i] * weight.values[o * in + i];
        y.push_back(sum);
      }
    }
    return y;
  }

  Values Linear(const std::string& prefix, const Values& x) const {
    return Product(x, tensors_.at(prefix + "weight"), tensors_.at(prefix + "bias"));
  }

  const float* Find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second.values.data();
  }

  std::vector<float> Bias(const std::string& prefix, const RegionShape& shape,
                          const Regions& regions, float scale) const {
    if (json_.at("attn").at("use_rpe")) {
      return tensors_.at(prefix + "local_relative_position_bias_table").values;
    }
    if (!json_.at("attn").at("use_t5_rpe")) return {};
    return *T5Bias(tensors_.at(prefix + "rel_pos_bias.relative_attention_bias.weight").values,
                   json_.at("num_attention_heads"), scale,
                   T5BucketsFor(shape.window, shape.extension(), false), regions.window_queries,
                   regions.window_keys);
  }

  Values Attend(const std::string& prefix, const Values& x) const {
    const nlohmann::json& attn = json_.at("attn");
    const int size = json_.at("hidden_size"), heads = json_.at("num_attention_heads");
    const int num_tokens = static_cast<int>(x.size()) / size, head_dim = size / heads;
    const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
    const RegionShape shape = {.width = num_tokens,
                               .window = attn.at("window_size"),
                               .num_landmarks = attn.at("num_landmarks"),
                               .overlap = attn.at("overlap_window")};
    const Regions regions = *MakeRegions(shape);
    const RegionItem item = {.regions = &regions};
    const std::vector<float> qkv = Floats(Linear(prefix + "qkv.", x));
    std::vector<PackedWeight> maps;
    for (const char* name : {"adaptive_mu_q.0.weight", "adaptive_mu_k.0.weight"}) {
      const WeightView view = {Find(prefix + name), DType::kFloat32, head_dim, head_dim};
      maps.push_back(PackedWeight::Pack({&view, 1}, DType::kFloat32));
    }
    const auto map_of = [&](const std::string& map, const PackedWeight& weight) {
      return AdaptiveMap{&weight, Find(prefix + map + "0.bias"), Find(prefix + map + "1.weight"),
                         Find(prefix + map + "1.bias")};
    };
    std::vector<float> k_bar(regions.num_chunks * size), beta(k_bar.size());
    EXPECT_TRUE(LandmarksReference({.items = {&item, 1},
                                    .num_heads = heads,
                                    .head_dim = head_dim,
                                    .scale = scale,
                                    .q = qkv.data(),
                                    .k = qkv.data() + size,
                                    .v = qkv.data() + 2 * size,
                                    .stride = 3 * size,
                                    .map_q = map_of("adaptive_mu_q.", maps[0]),
                                    .map_k = map_of("adaptive_mu_k.", maps[1]),
                                    .k_bar = k_bar.data(),
                                    .beta = beta.data()})
                    .ok());
    const std::vector<float> bias = Bias(prefix, shape, regions, scale);
    std::vector<float> out(x.size());
    EXPECT_TRUE(WindowAttendReference({.items = {&item, 1},
                                       .num_heads = heads,
                                       .head_dim = head_dim,
                                       .scale = scale,
                                       .q = qkv.data(),
                                       .k = qkv.data() + size,
                                       .v = qkv.data() + 2 * size,
                                       .stride = 3 * size,
                                       .k_bar = k_bar.data(),
                                       .beta = beta.data(),
                                       .bias = bias.empty() ? nullptr : bias.data(),
                                       .out = out.data(),
                                       .out_stride = size})
                    .ok());
    return Linear(prefix + "proj.", Values(out.begin(), out.end()));
  }

  const nlohmann::json& json_;
  const RandomEncoder& tensors_;
};

// That the guesses for the last token are those of its logits.
void ExpectGuesses(const TensorModel::Outputs& outputs, const Values& logits, size_t vocab_size) {
  Values logprobs(logits.end() - static_cast<int64_t>(vocab_size), logits.end());
  double sum = 0;
  for (double logit : logprobs) sum += std::exp(logit);
  for (double& logprob : logprobs) logprob -= std::log(sum);
  Values sorted = logprobs;
  std::ranges::sort(sorted, std::greater<>());
  const auto tokens = ValuesOf<int64_t>(outputs[3]);
  const std::vector<float> found = FloatsOf(outputs[4]);
  ASSERT_EQ(tokens.size(), 5);
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_NEAR(found[i], logprobs[tokens[i]], 5e-5);
    EXPECT_NEAR(found[i], sorted[i], 5e-5);
  }
}

struct Layout {
  const char* name;
  std::function<void(nlohmann::json& json)> change;
};

class EvaEncoderReferenceTest : public ::testing::TestWithParam<Layout> {};

TEST_P(EvaEncoderReferenceTest, TheModelIsThePlainLoops) {
  nlohmann::json json = TinyEncoderJson();
  GetParam().change(json);
  const RandomEncoder tensors(json);
  TempDir directory;
  tensors.Write(directory.path(), json);
  SerialWorkerPool workers;
  const auto model = LoadEvaEncoderModel(directory.path(), json, {}, workers);
  ASSERT_TRUE(model.ok()) << model.status();
  const Reference reference(json, tensors);
  for (int num_tokens : {1, 4, 17, 64}) {
    SCOPED_TRACE(num_tokens);
    const std::vector<int64_t> tokens = RandomTokens(num_tokens, num_tokens);
    EncoderRequest request(tokens, 1, num_tokens);
    request.SetMaskPositions({num_tokens - 1});
    const TensorModel::Inputs* requests[] = {request.inputs()};
    const auto outputs = (*model)->Run(requests);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    const Values hidden = reference.Hidden(tokens);
    EXPECT_LE(MaxError(FloatsOf((*outputs)[0][0]), Floats(hidden)), 2e-5);
    ASSERT_EQ((*outputs)[0].size(), json.value("masked_lm_head", false) ? 5 : 2);
    if ((*outputs)[0].size() == 2) continue;
    const Values logits = reference.Logits(hidden);
    EXPECT_LE(MaxError(FloatsOf((*outputs)[0][2]), Floats(logits)), 5e-5);
    ExpectGuesses((*outputs)[0], logits, json.at("vocab_size"));
  }
}

using J = nlohmann::json;
INSTANTIATE_TEST_SUITE_P(
    All, EvaEncoderReferenceTest,
    ::testing::Values(Layout{"Translation", [](J&) {}},
                      Layout{"NormBefore", [](J& j) { j["normalize_before"] = true; }},
                      Layout{"Gelu", [](J& j) { j["hidden_act"] = "gelu"; }},
                      Layout{"Scale", [](J& j) { j["embed_scale"] = 2; }},
                      Layout{"Padding", [](J& j) { j["padding_idx"] = 0; }},
                      Layout{"LearnedPositions", [](J& j) { j["positions"] = "learned"; }},
                      Layout{"EmbeddingNorm", [](J& j) { j["layernorm_embedding"] = true; }},
                      Layout{"Head", [](J& j) { j["masked_lm_head"] = true; }},
                      Layout{"MaskedLm", [](J& j) { j = TinyMaskedLmJson(); }}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace evaserve

// Which checkpoints fit which config.

#include "models/eva/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "kernels/relative_bias.h"
#include "models/testing/random_weights.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

constexpr int kHeads = 2, kSize = 16, kHeadDim = kSize / kHeads;

// With all that can be there.
EvaAttentionConfig Config() { return {.window = 4, .num_landmarks = 4}; }

// What the config asks for.
RandomWeights Weights(const EvaAttentionConfig& config, bool has_qkv_bias = true) {
  RandomWeights weights;
  weights.AddLinear("attn.qkv.", 3 * kSize, kSize);
  if (!has_qkv_bias) weights.erase("attn.qkv.bias");
  weights.AddLinear("attn.proj.", kSize, kSize);
  weights.AddLinear("attn.adaptive_mu_k.0.", kHeadDim, kHeadDim);
  if (config.has_norm()) weights.AddNorm("attn.adaptive_mu_k.1.", kHeadDim);
  if (!config.has_map_q()) return weights;
  weights.AddLinear("attn.adaptive_mu_q.0.", kHeadDim, kHeadDim);
  if (config.has_norm()) weights.AddNorm("attn.adaptive_mu_q.1.", kHeadDim);
  return weights;
}

absl::Status Read(const RandomWeights& weights, const EvaAttentionConfig& config,
                  bool has_qkv_bias = true) {
  const TempDir directory;
  weights.Write(directory.path(), {});
  const auto checkpoint = Checkpoint::Open(directory.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  TensorReader reader(*checkpoint);
  return ReadEvaAttention(reader, "attn.", config, kHeads, kSize, DType::kFloat32, has_qkv_bias)
      .status();
}

struct Misfit {
  const char* name;
  AdaptiveProj proj;
  bool has_qkv_bias;
  const char* tensor;  // that the config has no place for
  const char* key;
};

class EvaAttentionMisfitTest : public ::testing::TestWithParam<Misfit> {};

TEST_P(EvaAttentionMisfitTest, IsRefusedByTensorAndKey) {
  const Misfit& misfit = GetParam();
  EvaAttentionConfig config = Config();
  config.proj = misfit.proj;
  RandomWeights weights = Weights(config, misfit.has_qkv_bias);
  EXPECT_TRUE(Read(weights, config, misfit.has_qkv_bias).ok());
  weights.Add(misfit.tensor, {kHeadDim}, 1.f);
  EXPECT_THAT(Read(weights, config, misfit.has_qkv_bias),
              IsError(absl::StatusCode::kInvalidArgument, "model.safetensors", misfit.tensor,
                      "config.json has no place for it", misfit.key));
}

INSTANTIATE_TEST_SUITE_P(
    All, EvaAttentionMisfitTest,
    ::testing::Values(Misfit{"MapBias", AdaptiveProj::kDefault, true,
                             "attn.local_relative_position_bias_table", "\"use_rpe\""},
                      Misfit{"T5Bias", AdaptiveProj::kDefault, true,
                             "attn.rel_pos_bias.relative_attention_bias.weight", "\"use_t5_rpe\""},
                      Misfit{"NormOfQueries", AdaptiveProj::kNoNorm, true,
                             "attn.adaptive_mu_q.1.weight", "\"adaptive_proj\""},
                      Misfit{"NormOfKeys", AdaptiveProj::kNoNorm, true,
                             "attn.adaptive_mu_k.1.weight", "\"adaptive_proj\""},
                      Misfit{"MapOfQueries", AdaptiveProj::kNone, true,
                             "attn.adaptive_mu_q.0.weight", "\"adaptive_proj\""},
                      Misfit{"NormOfNoMap", AdaptiveProj::kNone, true,
                             "attn.adaptive_mu_q.1.weight", "\"adaptive_proj\""},
                      Misfit{"BiasOfQkv", AdaptiveProj::kDefault, false, "attn.qkv.bias",
                             "\"qkv_bias\""}),
    [](const auto& info) { return info.param.name; });

// With a T5 bias on windows of a map.
absl::Status ReadWithT5Bias(int window, bool overlap) {
  EvaAttentionConfig config = Config();
  config.window = window;
  config.overlap = overlap;
  config.is_2d = config.has_t5_bias = true;
  RandomWeights weights = Weights(config);
  const int extension = config.RegionsOf(1, 1).extension();
  weights.Add("attn.rel_pos_bias.relative_attention_bias.weight",
              {T5BucketsFor(window, extension, /*is_causal=*/false).num_buckets, kHeads}, 1.f);
  return Read(weights, config);
}

TEST(EvaAttentionTest, AWindowThatT5HasNoBucketsForIsNamedByItsKey) {
  EXPECT_EQ(ReadWithT5Bias(5, false), absl::OkStatus());
  EXPECT_EQ(ReadWithT5Bias(4, true), absl::OkStatus());
  EXPECT_THAT(ReadWithT5Bias(3, false),
              IsError(absl::StatusCode::kInvalidArgument,
                      "attn.bias: \"use_t5_rpe\" is true, which \"window_size\" 3"));
  EXPECT_THAT(ReadWithT5Bias(2, true), IsError(absl::StatusCode::kInvalidArgument,
                                               "\"window_size\" 2", "max_distance is 3"));
}

TEST(EvaAttentionTest, AWindowWhoseBiasWouldFillTheMemoryIsNamedByItsKey) {
  EXPECT_THAT(ReadWithT5Bias(256, false),
              IsError(absl::StatusCode::kInvalidArgument, "\"window_size\" 256",
                      "65536 queries x 65536 keys"));
}

}  // namespace
}  // namespace evaserve

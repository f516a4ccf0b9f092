// The laws of TensorModel, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "kernels/serial_worker_pool.h"
#include "models/eva_encoder/eva_encoder_model.h"
#include "models/eva_encoder/network.h"
#include "models/eva_encoder/testing/encoder_test.h"
#include "models/eva_encoder/testing/random_encoder.h"
#include "models/eva_encoder/testing/requests.h"
#include "models/testing/status_matchers.h"

namespace evaserve {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Pair;

class EvaEncoderTest : public EncoderTest {
 protected:
  // That the outputs of a batch are those of its rows one by one, and zeros after them.
  void ExpectRowByRow(const TokenRows& rows) {
    const TensorModel::Outputs batch = Run(EncoderRequest(rows));
    for (size_t i = 0; i < rows.size(); ++i) {
      SCOPED_TRACE(i);
      const auto length = static_cast<int64_t>(rows[i].size());
      const TensorModel::Outputs alone = Run(EncoderRequest(rows[i], 1, length));
      for (size_t which = 0; which < batch.size(); ++which) {
        const size_t bytes = batch[which].data.size() / rows.size();
        const std::string row = batch[which].data.substr(i * bytes, bytes);
        const std::string& expected = alone[which].data;
        EXPECT_TRUE(row.starts_with(expected)) << "output " << which;
        EXPECT_THAT(row.substr(expected.size()), Each('\0')) << "output " << which;
      }
    }
  }
};

TokenRows RowsOf(const std::vector<int>& lengths) {
  TokenRows rows;
  for (int length : lengths) rows.push_back(RandomTokens(length, rows.size()));
  return rows;
}

TEST_F(EvaEncoderTest, SaysWhatItTakesAndGives) {
  const TensorModelInfo& info = model_->info();
  EXPECT_EQ(info.architecture, "eva_encoder");
  ASSERT_EQ(info.inputs.size(), 4);
  EXPECT_EQ(info.inputs[0].name, "input_ids");
  EXPECT_FALSE(info.inputs[0].is_optional);
  EXPECT_EQ(info.inputs[1].name, "lengths");
  EXPECT_TRUE(info.inputs[1].is_optional);
  EXPECT_EQ(info.inputs[2].name, "mask_positions");
  EXPECT_EQ(info.inputs[3].name, "top_k");
  ASSERT_EQ(info.outputs.size(), 5);
  EXPECT_THAT(info.outputs[kHiddenState].shape, ElementsAre(-1, -1, 16));
  EXPECT_THAT(info.outputs[kEmbedding].shape, ElementsAre(-1, 16));
  EXPECT_THAT(info.outputs[kLogits].shape, ElementsAre(-1, -1, 40));
  EXPECT_THAT(info.parameters, ElementsAre(Pair("max_tokens", "64"), Pair("max_top_k", "40"),
                                           Pair("min_tokens", "1"), Pair("vocab_size", "40")));
  int64_t elements = 0;
  for (const auto& [name, tensor] : RandomEncoder(TinyMaskedLmJson())) {
    elements += static_cast<int64_t>(tensor.values.size());
  }
  EXPECT_EQ(info.num_parameters, elements);
  EXPECT_GT(info.weight_bytes, elements * 4);

  Load(TinyEncoderJson());
  EXPECT_EQ(model_->info().inputs.size(), 2);
  EXPECT_EQ(model_->info().outputs.size(), 2);
}

TEST_F(EvaEncoderTest, OutputsAreAsLongAsTheLongestRow) {
  EncoderRequest request(RowsOf({3, 9, 9}));
  request.SetLengths({3, 7, 6});
  const TensorModel::Outputs outputs = Run(request);
  EXPECT_THAT(outputs[kHiddenState].shape, ElementsAre(3, 7, 16));
  EXPECT_THAT(outputs[kEmbedding].shape, ElementsAre(3, 16));
  EXPECT_THAT(outputs[kLogits].shape, ElementsAre(3, 7, 40));
  EXPECT_EQ(outputs[kLogits].data.size(), 3 * 7 * 40 * sizeof(float));
}

TEST_F(EvaEncoderTest, GivesWhatIsWanted) {
  EncoderRequest request(RowsOf({3, 17}));
  const TensorModel::Outputs all = Run(request);
  for (size_t which : {kHiddenState, kEmbedding, kLogits}) {
    request.SetWantedOutputs({which});
    const TensorModel::Outputs one = Run(request);
    ASSERT_EQ(one.size(), all.size());
    EXPECT_EQ(one[which].shape, all[which].shape);
    EXPECT_EQ(one[which].data, all[which].data);
    for (size_t other = 0; other < all.size(); ++other) {
      if (other == which) continue;
      EXPECT_EQ(one[other].data, "") << other;
    }
  }
}

TEST_F(EvaEncoderTest, TheEmbeddingIsTheMeanOfTheTokens) {
  const TensorModel::Outputs outputs = Run(EncoderRequest(RowsOf({3, 9})));
  const std::vector<float> hidden = FloatsOf(outputs[kHiddenState]);
  const std::vector<float> embedding = FloatsOf(outputs[kEmbedding]);
  for (int i = 0; i < 16; ++i) {
    EXPECT_NEAR(embedding[i], (hidden[i] + hidden[16 + i] + hidden[32 + i]) / 3, 1e-6);
  }
}

TEST_F(EvaEncoderTest, NoRowsGiveNoRows) {
  const TensorModel::Outputs outputs = Run(EncoderRequest({}, 0, 5));
  EXPECT_THAT(outputs[kHiddenState].shape, ElementsAre(0, 0, 16));
  EXPECT_THAT(outputs[kEmbedding].shape, ElementsAre(0, 16));
}

TEST_F(EvaEncoderTest, ABatchIsItsRowsToTheBit) {
  const TokenRows rows = RowsOf({3, 64, 1, 17, 4, 17, 5, 40});
  ExpectRowByRow(rows);
  Load(TinyEncoderJson());
  ExpectRowByRow(rows);
  Load(TinyMaskedLmJson(), {.dtype = DType::kBFloat16});
  ExpectRowByRow(rows);
}

// More tokens than go through the layers together, and more lengths than once.
TEST_F(EvaEncoderTest, ABatchOfManyPassesIsItsRowsToTheBit) {
  std::vector<int> lengths;
  for (int i = 0; i < 300; ++i) lengths.push_back(1 + i * 7 % 64);
  ExpectRowByRow(RowsOf(lengths));
}

TEST_F(EvaEncoderTest, RequestsDoNotInfluenceEachOther) {
  const EncoderRequest one(RowsOf({5, 33})), two(RandomTokens(21, 7), 3, 7);
  const TensorModel::Inputs* requests[] = {one.inputs(), two.inputs()};
  const auto together = model_->Run(requests);
  ASSERT_TRUE(together.ok()) << together.status();
  ASSERT_EQ(together->size(), 2);
  const TensorModel::Outputs alone[] = {Run(one), Run(two)};
  for (int request : {0, 1}) {
    for (int which : {kHiddenState, kEmbedding, kLogits}) {
      EXPECT_EQ((*together)[request][which].shape, alone[request][which].shape);
      EXPECT_TRUE((*together)[request][which].data == alone[request][which].data)
          << request << ", " << which;
    }
  }
}

TEST_F(EvaEncoderTest, TheRestOfARowIsNotRead) {
  const TokenRows rows = RowsOf({5, 33});
  const TensorModel::Outputs with_padding = Run(EncoderRequest(rows, 1));
  const TensorModel::Outputs with_garbage = Run(EncoderRequest(rows, -1 << 20));
  EXPECT_TRUE(with_padding[kHiddenState].data == with_garbage[kHiddenState].data);
}

TEST_F(EvaEncoderTest, AHeadMayHaveItsOwnMatrix) {
  const EncoderRequest request(RowsOf({9}));
  const TensorModel::Outputs tied = Run(request);
  const nlohmann::json json = TinyMaskedLmJson();
  RandomEncoder tensors(json);
  tensors["lm_head.weight"] = tensors["embed_tokens.weight"];
  for (float& value : tensors["lm_head.weight"].values) value *= 2;
  for (float& value : tensors["lm_head.bias"].values) value *= 2;
  tensors.Write(directory_.path(), json);
  model_ = *LoadEvaEncoderModel(directory_.path(), json, {}, workers_);
  const std::vector<float> twice = FloatsOf(Run(request)[kLogits]);
  const std::vector<float> once = FloatsOf(tied[kLogits]);
  for (size_t i = 0; i < once.size(); ++i) ASSERT_EQ(twice[i], 2 * once[i]);
}

TEST_F(EvaEncoderTest, RefusesTokensThatAreNone) {
  const auto error_of = [&](int64_t id) {
    return ErrorOf(EncoderRequest({2, 3, 4, 5, 6, id}, 2, 3));
  };
  EXPECT_THAT(error_of(40), IsError(kInvalid, "input_ids: row 1, token 2 is 40", "0 to 39"));
  EXPECT_THAT(error_of(-1), IsError(kInvalid, "input_ids: row 1, token 2 is -1", "0 to 39"));
  EXPECT_THAT(error_of(int64_t{1} << 32), IsError(kInvalid, "token 2 is 4294967296"));
  EXPECT_THAT(error_of(1), IsError(kInvalid, "input_ids: row 1, token 2 is 1", "padding"));
  EXPECT_TRUE(error_of(39).ok());
}

TEST_F(EvaEncoderTest, RefusesRowsOfNoTokensAndOfTooMany) {
  EXPECT_THAT(ErrorOf(EncoderRequest({}, 2, 0)),
              IsError(kInvalid, "input_ids: rows have 0 tokens, allowed are 1 to 64"));
  EXPECT_THAT(ErrorOf(EncoderRequest(RandomTokens(65, 1), 1, 65)),
              IsError(kInvalid, "input_ids: rows have 65 tokens, allowed are 1 to 64"));
  EncoderRequest request(RandomTokens(12, 1), 2, 6);
  const std::pair<int64_t, const char*> lengths[] = {
      {0, "has 0 tokens"}, {-3, "has -3 tokens"}, {7, "has 7 tokens"}};
  for (const auto& [length, message] : lengths) {
    request.SetLengths({6, length});
    EXPECT_THAT(ErrorOf(request), IsError(kInvalid, "lengths: row 1", message, "1 to 6"));
  }
}

// Columns are not tokens: a row ends where its length says.
TEST_F(EvaEncoderTest, ATensorMayBeWiderThanTheLongestRow) {
  EncoderRequest request(RandomTokens(70, 1), 1, 70);
  request.SetLengths({64});
  EXPECT_TRUE(ErrorOf(request).ok());
  request.SetLengths({65});
  EXPECT_THAT(ErrorOf(request), IsError(kInvalid, "lengths: row 0 has 65 tokens", "1 to 64"));
}

TEST_F(EvaEncoderTest, RefusesRowsThatTheAttentionCannotCut) {
  nlohmann::json json = TinyMaskedLmJson();
  json["attn"]["num_landmarks"] = 9;
  Load(json);
  EXPECT_THAT(ErrorOf(EncoderRequest(RandomTokens(8, 1), 1, 8)),
              IsError(kInvalid, "input_ids: rows have 8 tokens, allowed are 9 to 64"));
  EXPECT_TRUE(ErrorOf(EncoderRequest(RandomTokens(9, 1), 1, 9)).ok());
  // Padded to 20, in chunks of 2; then to 28, in chunks of 3.
  EXPECT_TRUE(ErrorOf(EncoderRequest(RandomTokens(20, 1), 1, 20)).ok());
  EXPECT_THAT(ErrorOf(EncoderRequest(RandomTokens(28, 1), 1, 28)),
              IsError(kInvalid, "input_ids: row 0 has 28 tokens", "chunks of 3 divide 28"));
}

TEST_F(EvaEncoderTest, RefusesMoreOutputsThanAMessageCarries) {
  const int64_t row_bytes = (64 * (16 + 40) + 16) * sizeof(float);
  const int64_t rows = (int64_t{1} << 30) / row_bytes + 1;
  const auto one_long = [](int64_t rows) {
    std::vector<int64_t> lengths(rows, 1);
    lengths[0] = 64;
    return lengths;
  };
  EncoderRequest all(std::vector<int64_t>(rows * 64, 2), rows, 64);
  all.SetLengths(one_long(rows));
  EXPECT_THAT(ErrorOf(all), IsError(kInvalid, "input_ids", "bytes of outputs"));
  all.SetWantedOutputs({kEmbedding});
  EXPECT_TRUE(model_->CountTokens(*all.inputs()).ok());
  EncoderRequest half(std::vector<int64_t>((rows / 2 + 1) * 64, 2), rows / 2 + 1, 64);
  half.SetLengths(one_long(rows / 2 + 1));
  const TensorModel::Inputs* both[] = {half.inputs(), half.inputs()};
  EXPECT_THAT(model_->Run(both).status(),
              IsError(absl::StatusCode::kResourceExhausted, "bytes of outputs"));
}

TEST_F(EvaEncoderTest, RefusesMoreTokensThanARequestMayHave) {
  EXPECT_THAT(ErrorOf(EncoderRequest(std::vector<int64_t>(8193 * 64, 2), 8193, 64)),
              IsError(kInvalid, "input_ids: got 8193 rows of 524352 tokens", "524288"));
}

TEST_F(EvaEncoderTest, EndsWhenNobodyWaitsAnyMore) {
  const EncoderRequest request(RandomTokens(12, 1), 2, 6);
  const TensorModel::Inputs* requests[] = {request.inputs()};
  model_->set_is_wanted([] { return false; });
  EXPECT_TRUE(absl::IsCancelled(model_->Run(requests).status()));
}

class LoadEvaEncoderModelTest : public ::testing::Test {
 protected:
  absl::Status ErrorOf(const nlohmann::json& json, const RandomEncoder& tensors,
                       const LoadOptions& options = {}) {
    tensors.Write(directory_.path(), json);
    return LoadEvaEncoderModel(directory_.path(), json, options, workers_).status();
  }

  const TempDir directory_;
  const nlohmann::json json_ = TinyEncoderJson();
  RandomEncoder tensors_{json_};
  SerialWorkerPool workers_;
};

TEST_F(LoadEvaEncoderModelTest, NamesATensorThatIsMissingOrOfAnotherShape) {
  for (const auto& [name, tensor] : RandomEncoder(TinyMaskedLmJson())) {
    RandomEncoder tensors(TinyMaskedLmJson());
    tensors.Add(name, {3, 5}, 1.f);
    EXPECT_THAT(ErrorOf(TinyMaskedLmJson(), tensors), IsError(kInvalid, name, "shape [3, 5]"));
    tensors.erase(name);
    EXPECT_THAT(ErrorOf(TinyMaskedLmJson(), tensors), IsError(kInvalid, name, "missing"));
  }
}

TEST_F(LoadEvaEncoderModelTest, NamesATensorThatTheConfigHasNoPlaceFor) {
  const std::pair<const char*, const char*> tensors_and_keys[] = {
      {"embed_positions.weight", "positions"},
      {"layernorm_embedding.weight", "layernorm_embedding"},
      {"layer_norm.weight", "normalize_before"},
      {"layers.1.self_attn.attn.local_relative_position_bias_table", "use_rpe"},
      {"layers.1.self_attn.attn.adaptive_mu_q.1.weight", "adaptive_proj"},
      {"layers.1.self_attn.attn.adaptive_mu_k.1.weight", "adaptive_proj"},
      {"layers.2.fc1.bias", "num_hidden_layers 2"}};
  for (const auto& [name, key] : tensors_and_keys) {
    RandomEncoder tensors = tensors_;
    tensors.Add(name, {16}, 1.f);
    EXPECT_THAT(ErrorOf(json_, tensors), IsError(kInvalid, "model.safetensors", name, key));
  }
}

// More positions than there is memory for are not even tried.
TEST_F(LoadEvaEncoderModelTest, AnEmptyCheckpointIsRefusedBeforePositionsAreMade) {
  EvaEncoderConfig config = *ReadEvaEncoderConfig("config.json", json_, {});
  config.max_tokens = 1 << 30;
  config.size = 1 << 20;
  RandomWeights().Write(directory_.path(), json_);
  const auto checkpoint = Checkpoint::Open(directory_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  TensorReader reader(*checkpoint);
  EXPECT_THAT(ReadEvaEncoderWeights(reader, config).status(),
              IsError(kInvalid, "embed_tokens.weight", "missing"));
}

TEST_F(LoadEvaEncoderModelTest, SaysWhatIsMissing) {
  EXPECT_THAT(LoadEvaEncoderModel(directory_.path(), json_, {}, workers_).status(),
              IsError(absl::StatusCode::kNotFound, "model.safetensors"));
}

TEST_F(LoadEvaEncoderModelTest, RunsOnTheCpuAlone) {
  LoadOptions options;
  options.device.kind = Device::Kind::kCuda;
  EXPECT_THAT(ErrorOf(json_, tensors_, options),
              IsError(absl::StatusCode::kUnimplemented, "the CPU only"));
}

}  // namespace
}  // namespace evaserve

#include "models/eva_lm/word_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "kernels/serial_worker_pool.h"
#include "models/eva_lm/testing/random_lm.h"
#include "models/testing/golden.h"

namespace evaserve {
namespace {

constexpr int kRows = 7;
// float32 sums over some dozen terms.
constexpr double kTolerance = 1e-5;

nlohmann::json UntiedLmJson() {
  nlohmann::json json = TinyPlainLmJson();
  json["share_input_output_embed"] = false;
  return json;
}

class WordTablesTest : public ::testing::Test {
 protected:
  void Load(const nlohmann::json& json) {
    weights_ = std::make_unique<RandomLm>(json);
    weights_->Write(dir_.path(), json);
    config_ = *ReadEvaLmConfig("config.json", json, {});
    checkpoint_ = std::make_unique<Checkpoint>(*Checkpoint::Open(dir_.path()));
    TensorReader reader(*checkpoint_);
    tables_ = std::make_unique<WordTables>(reader, config_);
    ASSERT_TRUE(reader.status().ok()) << reader.status();
  }

  const RandomTensor& tensor(const std::string& name) const { return weights_->at(name); }

  // Row `index` of a matrix times x, in float64.
  static double Product(const RandomTensor& matrix, int64_t index, std::span<const float> x) {
    double sum = 0;
    for (int64_t i = 0; i < matrix.shape[1]; ++i) {
      sum += double{matrix.values[index * matrix.shape[1] + i]} * x[i];
    }
    return sum;
  }

  std::vector<float> RandomHidden() const {
    RandomWeights random;
    random.Add("x", {kRows, config_.size}, 1.f);
    return random.at("x").values;
  }

  TempDir dir_;
  SerialWorkerPool workers_;
  EvaLmConfig config_;
  std::unique_ptr<RandomLm> weights_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<WordTables> tables_;
};

// The words at the edges of bands.
constexpr TokenId kEdges[] = {0, 19, 20, 39, 40, 59, 20};
static_assert(std::size(kEdges) == kRows);

TEST_F(WordTablesTest, EmbedsWordsThroughTheirBands) {
  Load(TinyLmJson());
  std::vector<float> x(kRows * 32);
  tables_->Embed(kEdges, x.data(), workers_);
  const struct {
    int band, begin, size;
  } bands[] = {{0, 0, 32}, {0, 0, 32}, {1, 20, 8}, {1, 20, 8}, {2, 40, 2}, {2, 40, 2}, {1, 20, 8}};
  for (int row = 0; row < kRows; ++row) {
    const auto& [band, begin, size] = bands[row];
    const std::string prefix = "embed_tokens.embeddings." + std::to_string(band) + ".";
    const float* word =
        tensor(prefix + "0.weight").values.data() + int64_t{kEdges[row] - begin} * size;
    for (int j = 0; j < 32; ++j) {
      const double expected = Product(tensor(prefix + "1.weight"), j, {word, word + size});
      EXPECT_NEAR(x[row * 32 + j], expected * std::sqrt(32.), kTolerance * 10) << row;
    }
  }
}

TEST_F(WordTablesTest, PlainEmbeddingsAreRowsOfTheMatrix) {
  Load(TinyPlainLmJson());
  std::vector<float> x(kRows * 32);
  tables_->Embed(kEdges, x.data(), workers_);
  const float* words = tensor("embed_tokens.weight").values.data();
  for (int i = 0; i < kRows * 32; ++i) {
    EXPECT_FLOAT_EQ(x[i], words[kEdges[i / 32] * 32 + i % 32] * std::sqrt(32.f));
  }
}

TEST_F(WordTablesTest, AWordIsAsLikelyAsItsBandTimesTheWordInTheBand) {
  Load(TinyLmJson());
  const std::vector<float> hidden = RandomHidden();
  std::vector<float> logprobs(kRows * 60);
  tables_->LogProbs(hidden.data(), kRows, logprobs.data(), workers_);
  const RandomTensor& first = tensor("embed_tokens.embeddings.0.0.weight");
  const RandomTensor& classes = tensor("adaptive_softmax.head.class_proj.weight");
  const RandomTensor& words = tensor("embed_tokens.embeddings.2.0.weight");
  const RandomTensor& widen = tensor("embed_tokens.embeddings.2.1.weight");
  for (int row = 0; row < kRows; ++row) {
    const std::span<const float> x(hidden.data() + row * 32, 32);
    double head = 0;
    for (int i = 0; i < 20; ++i) head += std::exp(Product(first, i, x));
    for (int i = 0; i < 2; ++i) head += std::exp(Product(classes, i, x));
    EXPECT_NEAR(logprobs[row * 60 + 3], Product(first, 3, x) - std::log(head), kTolerance);
    float narrow[2] = {};
    for (int i = 0; i < 64; ++i) narrow[i % 2] += widen.values[i] * x[i / 2];
    double band = 0;
    for (int i = 0; i < 20; ++i) band += std::exp(Product(words, i, narrow));
    const double expected =
        Product(classes, 1, x) - std::log(head) + Product(words, 5, narrow) - std::log(band);
    EXPECT_NEAR(logprobs[row * 60 + 45], expected, kTolerance);
  }
}

TEST_F(WordTablesTest, AnUntiedOutputIsAMatrixOfItsOwn) {
  Load(UntiedLmJson());
  const std::vector<float> hidden = RandomHidden();
  std::vector<float> logprobs(kRows * 60);
  tables_->LogProbs(hidden.data(), kRows, logprobs.data(), workers_);
  const RandomTensor& output = tensor("output_projection.weight");
  const std::span<const float> x(hidden.data(), 32);
  double sum = 0;
  for (int i = 0; i < 60; ++i) sum += std::exp(Product(output, i, x));
  EXPECT_NEAR(logprobs[7], Product(output, 7, x) - std::log(sum), kTolerance);
}

TEST_F(WordTablesTest, ATargetIsAsLikelyAsAmongAllWords) {
  for (const nlohmann::json& json : {TinyLmJson(), TinyPlainLmJson(), UntiedLmJson()}) {
    Load(json);
    const std::vector<float> hidden = RandomHidden();
    std::vector<float> all(kRows * 60), targets(kRows);
    tables_->LogProbs(hidden.data(), kRows, all.data(), workers_);
    tables_->TargetLogProbs(hidden.data(), kEdges, targets.data(), workers_);
    double total = 0;
    for (int i = 0; i < 60; ++i) total += std::exp(all[i]);
    EXPECT_NEAR(total, 1, kTolerance);
    for (int row = 0; row < kRows; ++row) {
      EXPECT_NEAR(targets[row], all[row * 60 + kEdges[row]], kTolerance);
    }
  }
}

}  // namespace
}  // namespace evaserve

// The whole model against the authors' fairseq (testing/official_translations.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>

#include "kernels/serial_worker_pool.h"
#include "models/eva_translation/eva_translation_model.h"
#include "models/eva_translation/testing/random_translation.h"
#include "models/eva_translation/testing/requests.h"

namespace evaserve {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::Le;
using J = nlohmann::json;

struct Model {
  J json;
  float eos_scale = 1;  // such that some translations end by themselves, others at the limit

  void Write(const std::filesystem::path& directory) const {
    RandomTranslation tensors(json);
    tensors.ScaleEos(eos_scale);
    tensors.WriteModel(directory);
  }
};

std::map<std::string, Model> Models() {
  J before = TinyTranslationJson();
  before["encoder"]["normalize_before"] = before["decoder"]["normalize_before"] = true;
  J learned = TinyTranslationJson();
  learned["encoder"]["positions"] = learned["decoder"]["positions"] = "learned";
  return {{"usual", {TinyTranslationJson()}},
          {"shared", {TinySharedTranslationJson(), 3.5f}},
          {"norm_before", {before, 2.5f}},
          {"learned_positions", {learned, -1.2f}}};
}

J Official() {
  std::ifstream file(EVASERVE_OFFICIAL_TRANSLATIONS);
  return J::parse(file);
}

// Whether </s> was chosen: a longer translation was allowed.
bool EndsByItself(const J& translation, const J& json) {
  const J& usual = json.at("generation");
  const double num_source_tokens = translation.at("source").size() + 1.;
  const double limit = std::min(
      usual.at("max_len_a").get<double>() * num_source_tokens + usual.at("max_len_b").get<double>(),
      json.at("decoder").at("max_target_positions").get<double>() - 1);
  return translation.at("target").size() < std::floor(limit);
}

// Otherwise a search that never chooses </s>, or at the wrong time, would go unseen.
TEST(OfficialTranslationsTest, SomeEndByThemselvesAndSomeAtTheLimit) {
  const J official = Official();
  for (const auto& [name, model] : Models()) {
    const J& translations = official.at(name);
    const auto num_ended = std::ranges::count_if(
        translations, [&](const J& one) { return EndsByItself(one, model.json); });
    EXPECT_THAT(num_ended / static_cast<double>(translations.size()), AllOf(Ge(0.3), Le(0.9)))
        << name;
  }
}

TEST(OfficialTranslationsTest, TranslatesAsTheOfficialCode) {
  if (const char* folder = std::getenv("EVASERVE_WRITE_MODELS")) {
    for (const auto& [name, model] : Models()) {
      std::filesystem::create_directories(std::filesystem::path(folder) / name);
      model.Write(std::filesystem::path(folder) / name);
    }
    GTEST_SKIP() << "written to " << folder;
  }
  const J official = Official();
  SerialWorkerPool workers;
  for (const auto& [name, random] : Models()) {
    SCOPED_TRACE(name);
    const TempDir directory;
    random.Write(directory.path());
    const auto model = LoadEvaTranslationModel(directory.path(), random.json, {}, workers);
    ASSERT_TRUE(model.ok()) << model.status();
    const bool is_one = random.json.value("share_all_embeddings", false);
    ASSERT_GT(official.at(name).size(), 30);
    for (const J& one : official.at(name)) {
      TranslationRequest request({TextOf(one.at("source"), is_one ? "w" : "e")});
      request.BeamSize(one.at("beam_size")).LengthPenalty(one.at("len_penalty"));
      const TensorModel::Inputs* requests[] = {request.inputs()};
      const auto outputs = (*model)->Run(requests);
      ASSERT_TRUE(outputs.ok()) << outputs.status();
      const Translations got = ReadTranslations(outputs->front());
      EXPECT_EQ(got.texts[0], TextOf(one.at("target"), is_one ? "w" : "d")) << one;
      EXPECT_NEAR(got.scores[0], one.at("score").get<double>(), 2e-5) << one;
    }
  }
}

}  // namespace
}  // namespace evaserve

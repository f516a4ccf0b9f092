// The whole model against the authors' fairseq (testing/official_translations.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "kernels/serial_worker_pool.h"
#include "models/eva_translation/eva_translation_model.h"
#include "models/eva_translation/testing/random_translation.h"
#include "models/eva_translation/testing/requests.h"

namespace evaserve {
namespace {

using J = nlohmann::json;

std::map<std::string, J> Models() {
  J before = TinyTranslationJson();
  before["encoder"]["normalize_before"] = before["decoder"]["normalize_before"] = true;
  J learned = TinyTranslationJson();
  learned["encoder"]["positions"] = learned["decoder"]["positions"] = "learned";
  return {{"usual", TinyTranslationJson()},
          {"shared", TinySharedTranslationJson()},
          {"norm_before", before},
          {"learned_positions", learned}};
}

void WriteModels(const std::filesystem::path& folder) {
  for (const auto& [name, json] : Models()) {
    std::filesystem::create_directories(folder / name);
    RandomTranslation(json).WriteModel(folder / name);
  }
}

TEST(OfficialTranslationsTest, TranslatesAsTheOfficialCode) {
  if (const char* folder = std::getenv("EVASERVE_WRITE_MODELS")) {
    WriteModels(folder);
    GTEST_SKIP() << "written to " << folder;
  }
  std::ifstream file(EVASERVE_OFFICIAL_TRANSLATIONS);
  const J official = J::parse(file);
  SerialWorkerPool workers;
  for (const auto& [name, json] : Models()) {
    SCOPED_TRACE(name);
    const TempDir directory;
    RandomTranslation(json).WriteModel(directory.path());
    const auto model = LoadEvaTranslationModel(directory.path(), json, {}, workers);
    ASSERT_TRUE(model.ok()) << model.status();
    const bool is_one = json.value("share_all_embeddings", false);
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

#include "server/repository/model_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "models/testing/status_matchers.h"
#include "models/testing/temp_dir.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

constexpr auto kNotFound = absl::StatusCode::kNotFound;

class RepositoryDirectoryTest : public testing::Test {
 protected:
  // A file, with the directories that lead to it.
  void Write(const std::string& path, std::string_view contents = "{}") {
    std::filesystem::create_directories((dir_.path() / path).parent_path());
    WriteFile(dir_.path() / path, contents);
  }
  std::vector<int64_t> VersionsOf(const std::string& name) {
    const auto sources = repository_.Versions(name);
    EXPECT_TRUE(sources.ok()) << sources.status();
    std::vector<int64_t> versions;
    for (const ModelSource& source : *sources) versions.push_back(source.version);
    return versions;
  }

  const TempDir dir_;
  const RepositoryDirectory repository_{dir_.path(), {}};
};

TEST_F(RepositoryDirectoryTest, AModelMayLieThereWithoutAVersion) {
  Write("flat/config.json");
  Write("flat/7/config.json");
  EXPECT_THAT(VersionsOf("flat"), ElementsAre(1));
}

TEST_F(RepositoryDirectoryTest, TheHighestVersionIsServedUnlessThePolicyWantsOthers) {
  for (const char* version : {"1", "9", "10", "010", "x", "0"}) {
    Write(std::string("m/") + version + "/config.json");
  }
  EXPECT_THAT(VersionsOf("m"), ElementsAre(10));
  Write("m/serving.json", R"({"version_policy": {"latest": {"num_versions": 2}}})");
  EXPECT_THAT(VersionsOf("m"), ElementsAre(9, 10));
  Write("m/serving.json", R"({"version_policy": {"all": {}}})");
  EXPECT_THAT(VersionsOf("m"), ElementsAre(1, 9, 10));
  Write("m/serving.json", R"({"version_policy": {"specific": {"versions": [9, 1]}}})");
  EXPECT_THAT(VersionsOf("m"), ElementsAre(1, 9));
  Write("m/serving.json", R"({"version_policy": {"specific": {"versions": [8]}}})");
  EXPECT_THAT(repository_.Versions("m").status(), IsError(kInvalid, "version 8", "10, 9, 1"));
}

TEST_F(RepositoryDirectoryTest, TellsWhatIsNoVersionByItsName) {
  for (const char* version : {"1", "02", "v2", "0"}) {
    Write(std::string("m/") + version + "/config.json");
  }
  Write("m/assets/logo.txt");
  EXPECT_THAT(repository_.Misnumbered("m"), ElementsAre("0", "02", "v2"));

  Write("n/v1/config.json");
  EXPECT_THAT(repository_.Versions("n").status(), IsError(kInvalid, "version's number", "v1"));
}

TEST_F(RepositoryDirectoryTest, SettingsOfAVersionCountBeforeThoseOfTheModel) {
  Write("m/1/config.json");
  Write("m/serving.json", R"({"max_running": 5, "max_waiting": 6})");
  Write("m/1/serving.json", R"({"max_running": 7})");

  const EngineOptions engine = repository_.Versions("m")->front().settings.engine;
  EXPECT_EQ(engine.max_running, 7);
  EXPECT_EQ(engine.waiting.max_waiting, 6);

  const nlohmann::json changes = {{"max_running", 8}};
  EXPECT_EQ(repository_.Versions("m", changes)->front().settings.engine.max_running, 8);
}

TEST_F(RepositoryDirectoryTest, TheStampChangesWithTheFiles) {
  Write("m/config.json");
  const uint64_t before = repository_.Versions("m")->front().stamp;
  EXPECT_EQ(repository_.Versions("m")->front().stamp, before);
  Write("m/serving.json", R"({"max_running": 5})");
  EXPECT_NE(repository_.Versions("m")->front().stamp, before);
}

TEST_F(RepositoryDirectoryTest, TheStampOfAVersionChangesWithTheSettingsOfAll) {
  Write("m/1/config.json");
  const uint64_t before = repository_.Versions("m")->front().stamp;
  Write("m/serving.json", R"({"max_running": 5})");
  const uint64_t after = repository_.Versions("m")->front().stamp;
  EXPECT_NE(after, before);

  // Which versions are served is no change of one that is.
  Write("m/serving.json", R"({"max_running": 5, "version_policy": {"all": {}}})");
  EXPECT_EQ(repository_.Versions("m")->front().stamp, after);
}

TEST_F(RepositoryDirectoryTest, NamesWhatThereIs) {
  Write("b/config.json");
  Write("a/config.json");
  Write(".hidden/config.json");
  Write("lost+found/1234", "an inode");
  Write("c/serving.json");
  Write("d/1/model.safetensors");
  Write("e/v1/config.json");
  EXPECT_THAT(*repository_.Names(), ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(repository_.Versions("x").status(), IsError(kNotFound, "\"x\""));
  EXPECT_THAT(RepositoryDirectory("no/such", {}).Names().status(),
              IsError(kNotFound, "no/such", "No such file"));
}

TEST_F(RepositoryDirectoryTest, SaysWhatIsWrongWithAModel) {
  Write("empty/notes.txt");
  Write("bad/config.json");
  Write("bad/serving.json", R"({"max_running": "many"})");
  EXPECT_THAT(repository_.Versions("empty").status(), IsError(kInvalid, "empty", "config.json"));
  EXPECT_THAT(repository_.Versions("bad").status(),
              IsError(kInvalid, "bad/serving.json", "max_running", "many"));
}

// Nothing outside of the repository can be named.
TEST_F(RepositoryDirectoryTest, RefusesNamesThatAreNoName) {
  Write("m/config.json");
  for (const char* name :
       {"", ".", "..", "../m", "m/", "m/../m", ".m", "a b", "a\"b", "a\nb", "\\", "m/1"}) {
    EXPECT_THAT(repository_.Versions(name).status(), IsError(kInvalid, "model_name")) << name;
  }
  EXPECT_THAT(repository_.Versions(std::string("m\0", 2)).status(),
              IsError(kInvalid, "model_name"));
  EXPECT_THAT(repository_.Versions(std::string(200, 'a')).status(),
              IsError(kInvalid, "model_name"));
}

}  // namespace
}  // namespace evaserve

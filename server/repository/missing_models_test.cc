#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/repository/testing/repository_on_disk.h"

namespace evaserve {
namespace {

using ::testing::ElementsAre;

// Keeps what it is told last.
class MissingModelsTest : public RepositoryOnDisk {
 protected:
  absl::Status StartIn(ControlMode mode) {
    return Start({.mode = mode,
                  .poll_interval = kOften,
                  .load_at_start = {"*"},
                  .on_missing = [this](const std::set<std::string>& models) {
                    absl::MutexLock lock(&mutex_);
                    missing_ = models;
                  }});
  }
  std::set<std::string> Missing() {
    absl::MutexLock lock(&mutex_);
    return missing_;
  }

  absl::Mutex mutex_;
  std::set<std::string> missing_;
};

TEST_F(MissingModelsTest, AreThoseOfTheStartUntilClientsLoadOrUnloadThem) {
  for (const char* name : {"mended", "unwanted", "left"}) {
    Write(absl::StrCat(name, "/config.json"), "broken");
  }
  Write("good/config.json");
  ASSERT_TRUE(StartIn(ControlMode::kExplicit).ok());
  EXPECT_THAT(Missing(), ElementsAre("left", "mended", "unwanted"));

  EXPECT_TRUE(Unload("unwanted").ok());
  EXPECT_FALSE(Load("mended").ok());
  EXPECT_THAT(Missing(), ElementsAre("left", "mended"));
  Write("mended/config.json");
  EXPECT_TRUE(Load("mended").ok());
  EXPECT_THAT(Missing(), ElementsAre("left"));
}

TEST_F(MissingModelsTest, AModelWithAVersionThatFailedIsOne) {
  Write("m/serving.json", R"({"version_policy": {"all": {}}})");
  Write("m/1/config.json");
  Write("m/2/config.json", "broken");

  ASSERT_TRUE(StartIn(ControlMode::kNone).ok());

  EXPECT_THAT(Missing(), ElementsAre("m"));
}

TEST_F(MissingModelsTest, AreNoMoreWhenTheDirectorySaysSo) {
  Write("mended/config.json", "broken");
  Write("gone/config.json", "broken");
  ASSERT_TRUE(StartIn(ControlMode::kPoll).ok());
  EXPECT_THAT(Missing(), ElementsAre("gone", "mended"));

  std::filesystem::remove_all(dir_.path() / "gone");
  EXPECT_TRUE(Becomes("gone", "UNAVAILABLE 1 unloaded"));
  EXPECT_THAT(Missing(), ElementsAre("mended"));
  Write("mended/config.json");
  Write("next/config.json");
  EXPECT_TRUE(Becomes("next", "READY 1")) << "the other one comes first";
  EXPECT_THAT(Missing(), ElementsAre());
}

TEST_F(MissingModelsTest, WhatComesLaterAndFailsIsNone) {
  Write("m/config.json");
  ASSERT_TRUE(StartIn(ControlMode::kPoll).ok());

  Write("new/config.json", "broken");
  EXPECT_TRUE(Becomes("new", "UNAVAILABLE 1 config.json is broken"));

  EXPECT_THAT(Missing(), ElementsAre());
}

}  // namespace
}  // namespace evaserve

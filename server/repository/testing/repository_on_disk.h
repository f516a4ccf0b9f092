#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "models/testing/temp_dir.h"
#include "nlohmann/json.hpp"
#include "server/repository/repository_control.h"
#include "tests/fakes/fake_engine.h"

namespace evaserve {

inline constexpr std::chrono::milliseconds kOften{5};  // for a directory to be looked at

// A fixture: a repository on disk, and what controls it. A model whose config.json says "broken"
// fails to load.
class RepositoryOnDisk : public testing::Test {
 protected:
  RepositoryOnDisk() : models_(RepositoryOptions()) {}

  absl::StatusOr<std::unique_ptr<Model>> LoadFake(const std::filesystem::path& directory) {
    ++num_loads_;
    before_load_();
    if (!std::filesystem::exists(directory / "config.json")) {
      return absl::NotFoundError("config.json is missing");
    }
    if (std::filesystem::file_size(directory / "config.json") > 2) {
      return absl::InvalidArgumentError("config.json is broken");
    }
    if (!failures_.empty()) {
      absl::Status failure = failures_.front();
      failures_.pop_front();
      return failure;
    }
    auto model = std::make_unique<FakeModel>();
    newest_ = model->control();
    return model;
  }
  ModelRepository::Options RepositoryOptions() {
    ModelRepository::Options options;
    options.make_observer = [](const std::string&, int64_t) {
      return std::make_unique<RecordingObserver>();
    };
    options.load_model = [this](const std::filesystem::path& directory, auto&&...) {
      return LoadFake(directory);
    };
    return options;
  }

  void Write(const std::string& path, std::string_view contents = "{}") {
    std::filesystem::create_directories((dir_.path() / path).parent_path());
    WriteFile(dir_.path() / path, contents);
  }

  absl::Status Start(RepositoryControl::Options options) {
    if (!options.directory) options.directory.emplace(dir_.path(), ServingSettings());
    control_ = std::make_unique<RepositoryControl>(std::move(options), models_);
    return Wait([&](auto done) { control_->Start(done); });
  }

  // What a client gets to hear.
  absl::Status Load(const std::string& name,
                    const nlohmann::json& changes = nlohmann::json::object()) {
    return Wait([&](auto done) { control_->Load(name, changes, done); });
  }
  absl::Status Unload(const std::string& name) {
    return Wait([&](auto done) { control_->Unload(name, done); });
  }
  template <typename Ask>
  static absl::Status Wait(Ask&& ask) {
    absl::Status result;
    absl::Notification answered;
    ask([&](absl::Status status) {
      result = std::move(status);
      answered.Notify();
    });
    answered.WaitForNotification();
    return result;
  }

  // The state of a model in the index, "READY 1" or "UNAVAILABLE 0 not loaded", or nothing.
  std::string StateOf(const std::string& name) {
    for (const ModelStatus& status : control_->Index()) {
      if (status.name != name) continue;
      return std::string(Name(status.state)) + " " + std::to_string(status.version) +
             (status.reason.empty() ? "" : " " + status.reason);
    }
    return "";
  }
  // Waits for it, 10 s at most.
  bool Becomes(const std::string& name, const std::string& state) {
    for (int i = 0; i < 2000 && StateOf(name) != state; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return StateOf(name) == state;
  }

  const TempDir dir_;               // the repository
  const TempDir own_;               // of a model outside of it
  std::atomic<int> num_loads_ = 0;  // begun
  std::function<void()> before_load_ = [] {};
  std::deque<absl::Status> failures_;         // of the next loads; of the loading thread
  std::shared_ptr<FakeModelControl> newest_;  // of the model that was loaded last
  ModelRepository models_;
  std::unique_ptr<RepositoryControl> control_;
};

}  // namespace evaserve

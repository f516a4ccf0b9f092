#include "server/step_watch.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

namespace evaserve {

void StepWatch::Look() {
  std::map<std::string, std::chrono::milliseconds> ages;  // of a model's oldest step
  for (const ReadyModel& model : models_.Engines()) {
    std::chrono::milliseconds& age = ages[model.name];
    age = std::max(age, model.any()->step_age().value_or(std::chrono::milliseconds(0)));
  }
  std::set<std::string> stuck;
  for (const std::string& model : std::exchange(shown_, {})) {
    if (!ages.contains(model)) metrics_.RemoveStepAge(model);
  }
  for (const auto& [model, age] : ages) {
    metrics_.SetStepAge(model, age);
    shown_.insert(model);
    if (options_.limit.count() > 0 && age > options_.limit) stuck.insert(model);
  }
  std::set<std::string> before;
  {
    absl::MutexLock lock(&mutex_);
    before = std::exchange(stuck_, stuck);
  }
  for (const std::string& model : stuck) {
    if (!before.contains(model)) options_.on_change(model, true);
  }
  for (const std::string& model : before) {
    if (!stuck.contains(model)) options_.on_change(model, false);
  }
}

bool StepWatch::sees_stuck() const {
  absl::MutexLock lock(&mutex_);
  return !stuck_.empty();
}

bool StepWatch::sees_stuck(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  return stuck_.contains(model);
}

}  // namespace evaserve

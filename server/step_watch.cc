#include "server/step_watch.h"

#include <algorithm>
#include <map>
#include <vector>

namespace evaserve {

void StepWatch::Look() {
  std::map<std::string, std::chrono::milliseconds> ages;  // of a model's oldest step
  for (const ReadyModel& model : models_.Ready()) {
    std::chrono::milliseconds& age = ages[model.name];
    age = std::max(age, model.any()->step_age().value_or(std::chrono::milliseconds(0)));
  }
  std::set<std::string> stuck;
  for (const auto& [model, age] : ages) {
    metrics_.SetStepAge(model, age);
    if (options_.limit.count() > 0 && age > options_.limit) stuck.insert(model);
  }
  const std::set<std::string> before = std::exchange(stuck_, stuck);
  for (const std::string& model : stuck) {
    if (!before.contains(model)) options_.on_change(model, true);
  }
  for (const std::string& model : before) {
    if (!stuck.contains(model)) options_.on_change(model, false);
  }
}

}  // namespace evaserve

#pragma once

#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "server/engine/request.h"
#include "server/engine/scheduler.h"

namespace evaserve {

// Until when something must have happened to each of some requests. Not thread-safe.
class Deadlines {
 public:
  // One for each request: the last one counts. TimePoint::max() is none.
  void Set(RequestId id, TimePoint deadline);
  void Erase(RequestId id);

  // TimePoint::max() if there is none.
  TimePoint first() const;

  // Removes one that has passed and returns whose it is.
  std::optional<RequestId> TakePassed(TimePoint now);

 private:
  std::set<std::pair<TimePoint, RequestId>> in_order_;
  absl::flat_hash_map<RequestId, TimePoint> of_request_;
};

}  // namespace evaserve

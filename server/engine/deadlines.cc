#include "server/engine/deadlines.h"

namespace evaserve {

void Deadlines::Set(RequestId id, TimePoint deadline) {
  Erase(id);
  if (deadline == TimePoint::max()) return;
  in_order_.emplace(deadline, id);
  of_request_.emplace(id, deadline);
}

void Deadlines::Erase(RequestId id) {
  const auto found = of_request_.find(id);
  if (found == of_request_.end()) return;
  in_order_.erase({found->second, id});
  of_request_.erase(found);
}

TimePoint Deadlines::first() const {
  return in_order_.empty() ? TimePoint::max() : in_order_.begin()->first;
}

std::optional<RequestId> Deadlines::TakePassed(TimePoint now) {
  if (in_order_.empty() || in_order_.begin()->first > now) return std::nullopt;
  const RequestId id = in_order_.begin()->second;
  Erase(id);
  return id;
}

}  // namespace evaserve

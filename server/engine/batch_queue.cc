#include "server/engine/batch_queue.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace evaserve {

absl::Status BatchQueue::Push(const Item& item) {
  if (closed_) return absl::UnavailableError("the server is shutting down");
  if (num_waiting() >= options_.max_waiting) {
    return QueueFullError(
        options_.overload_status,
        absl::StrCat("too many requests are waiting, the limit is ", options_.max_waiting));
  }
  const auto after =
      std::upper_bound(waiting_.begin(), waiting_.end(), item.priority,
                       [](int priority, const Item& other) { return priority < other.priority; });
  waiting_.insert(after, item);
  return absl::OkStatus();
}

bool BatchQueue::Remove(uint64_t id) {
  return std::erase_if(waiting_, [id](const Item& item) { return item.id == id; }) > 0;
}

std::vector<uint64_t> BatchQueue::TakeExpired(TimePoint now) {
  std::vector<uint64_t> expired;
  std::erase_if(waiting_, [&](const Item& item) {
    if (item.expires > now) return false;
    expired.push_back(item.id);
    return true;
  });
  return expired;
}

size_t BatchQueue::NextBatch() const {
  int64_t rows = 0;
  size_t batch = 0;
  while (batch < waiting_.size()) {
    rows += waiting_[batch].rows;
    if (batch > 0 && rows > options_.max_batch_size) break;
    ++batch;
  }
  return batch;
}

bool BatchQueue::IsFull() const {
  int64_t rows = 0;
  for (const Item& item : waiting_) rows += item.rows;
  return rows >= options_.max_batch_size;
}

std::vector<uint64_t> BatchQueue::TakeReady(TimePoint now) {
  const size_t batch = NextBatch();
  if (batch == 0) return {};
  const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(batch);
  const bool has_waited = std::any_of(waiting_.begin(), end, [&](const Item& item) {
    return item.submitted + options_.max_queue_delay <= now;
  });
  if (!closed_ && !has_waited && !IsFull()) return {};
  std::vector<uint64_t> ids;
  for (auto item = waiting_.begin(); item != end; ++item) ids.push_back(item->id);
  waiting_.erase(waiting_.begin(), end);
  return ids;
}

std::optional<TimePoint> BatchQueue::NextWakeUp() const {
  if (waiting_.empty()) return std::nullopt;
  if (closed_ || IsFull()) return TimePoint::min();
  TimePoint first = TimePoint::max();
  for (const Item& item : waiting_) {
    first = std::min({first, item.expires, item.submitted + options_.max_queue_delay});
  }
  return first;
}

}  // namespace evaserve

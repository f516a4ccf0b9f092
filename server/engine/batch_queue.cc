#include "server/engine/batch_queue.h"

#include <algorithm>

namespace evaserve {

absl::Status BatchQueue::CheckRoomFor(const Item& item) const {
  if (closed_) return absl::UnavailableError("the server is shutting down");
  return CheckRoom(options_.waiting, {num_waiting(), waiting_tokens(), Sum(&Item::bytes)},
                   {1, item.tokens, item.bytes});
}

absl::Status BatchQueue::Push(const Item& item) {
  if (absl::Status status = CheckRoomFor(item); !status.ok()) return status;
  const auto after =
      std::upper_bound(waiting_.begin(), waiting_.end(), item.priority,
                       [](int priority, const Item& other) { return priority < other.priority; });
  waiting_.insert(after, item);
  return absl::OkStatus();
}

int64_t BatchQueue::Sum(int64_t Item::*member) const {
  int64_t sum = 0;
  for (const Item& item : waiting_) sum += item.*member;
  return sum;
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

size_t BatchQueue::NextBatch(int64_t max_rows) const {
  int64_t rows = 0;
  int64_t tokens = 0;
  size_t batch = 0;
  while (batch < waiting_.size()) {
    rows += waiting_[batch].rows;
    tokens += waiting_[batch].tokens;
    const bool has_tokens = options_.max_batch_tokens == 0 || tokens <= options_.max_batch_tokens;
    if (batch > 0 && (rows > max_rows || !has_tokens)) break;
    ++batch;
  }
  return batch;
}

int64_t BatchQueue::RowsThatAreEnough() const {
  const int64_t rows = Sum(&Item::rows);
  const bool is_full =
      rows >= options_.max_batch_size || NextBatch(options_.max_batch_size) < waiting_.size();
  if (is_full) return options_.max_batch_size;
  int64_t enough = 0;
  for (const int64_t preferred : options_.preferred_batch_sizes) {
    if (preferred <= rows) enough = preferred;
  }
  return enough;
}

std::vector<uint64_t> BatchQueue::TakeReady(TimePoint now) {
  const size_t longest = NextBatch(options_.max_batch_size);
  const bool has_waited = std::any_of(
      waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(longest),
      [&](const Item& item) { return item.submitted + options_.max_queue_delay <= now; });
  const int64_t rows = closed_ || has_waited ? options_.max_batch_size : RowsThatAreEnough();
  if (waiting_.empty() || rows == 0) return {};
  const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(NextBatch(rows));
  std::vector<uint64_t> ids;
  for (auto item = waiting_.begin(); item != end; ++item) ids.push_back(item->id);
  waiting_.erase(waiting_.begin(), end);
  return ids;
}

std::optional<TimePoint> BatchQueue::NextWakeUp() const {
  if (waiting_.empty()) return std::nullopt;
  if (closed_ || RowsThatAreEnough() > 0) return TimePoint::min();
  TimePoint first = TimePoint::max();
  for (const Item& item : waiting_) {
    first = std::min({first, item.expires, item.submitted + options_.max_queue_delay});
  }
  return first;
}

}  // namespace evaserve

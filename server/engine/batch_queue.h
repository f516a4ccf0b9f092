#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/overload.h"
#include "server/engine/request.h"

namespace evaserve {

// Decides which waiting requests run together in one pass of a model.
//
// It only decides: it starts no thread, takes no lock and reads no clock. The caller passes the
// time in.
//
// Requests run by priority and within one in the order they came, never skipping one. A batch is
// ready when
//   (a) it is full: one more request would pass max_batch_size or max_batch_tokens, or
//   (b) its oldest request has waited max_queue_delay, or
//   (c) the queue is closed, or
//   (d) what waits reaches a preferred size: then the largest of these that is reached is its size.
class BatchQueue {
 public:
  struct Options {
    // Rows of one batch, over its requests, at least 1. A request alone may have more: who pushes
    // it says what a client may send.
    int64_t max_batch_size = 64;
    // Tokens of one batch, likewise; 0: no limit.
    int64_t max_batch_tokens = 0;
    // Rows that make a batch without waiting any longer, in ascending order.
    std::vector<int64_t> preferred_batch_sizes = {};
    // How long a request waits for company. 0: it runs as soon as the model is free.
    std::chrono::microseconds max_queue_delay{0};
    WaitingLimits waiting = {};
  };

  struct Item {
    uint64_t id = 0;
    int64_t rows = 1;
    int64_t tokens = 0;
    int64_t bytes = 0;
    int priority = kDefaultPriority;
    TimePoint submitted;
    TimePoint expires = TimePoint::max();  // when it must run at the latest
  };

  explicit BatchQueue(Options options) : options_(std::move(options)) {}

  // Whether Push() would take it. Errors: those of CheckRoom() of overload.h; Unavailable after
  // Close().
  absl::Status CheckRoomFor(const Item& item) const;
  absl::Status Push(const Item& item);

  // True if it was waiting.
  bool Remove(uint64_t id);

  // Removes those that have expired and returns their ids.
  std::vector<uint64_t> TakeExpired(TimePoint now);

  // Removes the next batch and returns its ids; empty if none is ready.
  std::vector<uint64_t> TakeReady(TimePoint now);

  // When the next call can return something new; nothing if only a Push() can change that.
  std::optional<TimePoint> NextWakeUp() const;

  // Refuses new requests; those waiting are handed out without delay.
  void Close() { closed_ = true; }

  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int64_t waiting_tokens() const { return Sum(&Item::tokens); }

 private:
  int64_t Sum(int64_t Item::*member) const;
  // How many at the front make a batch of up to `max_rows`.
  size_t NextBatch(int64_t max_rows) const;
  // The rows of a batch that needs not wait for more, 0 if it has to.
  int64_t RowsThatAreEnough() const;

  const Options options_;
  std::deque<Item> waiting_;  // by priority, then oldest first
  bool closed_ = false;
};

}  // namespace evaserve

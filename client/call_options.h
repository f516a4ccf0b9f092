#pragma once

#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace grpc {
class ClientContext;
}

namespace evaserve {

// Ends calls from outside of them, such as on Ctrl-C. Thread-safe; outlives the calls that use it.
class Cancellation {
 public:
  // Ends with Cancelled the calls that run with this object now and those that start later.
  void Cancel();

  bool cancelled() const;

 private:
  friend class CallContext;
  void Add(grpc::ClientContext* context);
  void Remove(grpc::ClientContext* context);

  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> running_ ABSL_GUARDED_BY(mutex_);
};

// How one call is made.
struct CallOptions {
  // The call fails with DeadlineExceeded after this, and the server stops working on it.
  absl::Time deadline = absl::InfiniteFuture();
  // May be null; not owned.
  Cancellation* cancellation = nullptr;
};

}  // namespace evaserve

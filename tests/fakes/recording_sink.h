#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request.h"

namespace evaserve {

// Keeps what the engine makes of a request, for tests to look at. Thread-safe.
class RecordingSink final : public ResponseSink {
 public:
  bool OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) override;
  void OnDone(Completion completion) override;

  // Answers every OnTokens() from now on with false: a client that reads nothing.
  void SetSlow(bool slow);

  // Waits for the end.
  Completion WaitUntilDone() const;

  // Waits until it has `count` tokens.
  void WaitForTokens(size_t count) const;

  std::string text() const;
  std::vector<GeneratedToken> tokens() const;
  int num_done() const;  // calls of OnDone()

 private:
  mutable absl::Mutex mutex_;
  bool slow_ ABSL_GUARDED_BY(mutex_) = false;
  std::string text_ ABSL_GUARDED_BY(mutex_);
  std::vector<GeneratedToken> tokens_ ABSL_GUARDED_BY(mutex_);
  Completion completion_ ABSL_GUARDED_BY(mutex_);
  int num_done_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace evaserve

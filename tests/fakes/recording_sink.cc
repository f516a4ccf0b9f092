#include "tests/fakes/recording_sink.h"

#include <utility>

namespace evaserve {

bool RecordingSink::OnTokens(std::string_view text, std::span<const GeneratedToken> tokens) {
  absl::MutexLock lock(&mutex_);
  text_.append(text);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return !slow_;
}

void RecordingSink::OnDone(Completion completion) {
  absl::MutexLock lock(&mutex_);
  completion_ = std::move(completion);
  ++num_done_;
}

void RecordingSink::SetSlow(bool slow) {
  absl::MutexLock lock(&mutex_);
  slow_ = slow;
}

Completion RecordingSink::WaitUntilDone() const {
  auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_done_ > 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&done));
  return completion_;
}

void RecordingSink::WaitForTokens(size_t count) const {
  auto enough = [this, count]()
                    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return tokens_.size() >= count; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&enough));
}

std::string RecordingSink::text() const {
  absl::MutexLock lock(&mutex_);
  return text_;
}

std::vector<GeneratedToken> RecordingSink::tokens() const {
  absl::MutexLock lock(&mutex_);
  return tokens_;
}

int RecordingSink::num_done() const {
  absl::MutexLock lock(&mutex_);
  return num_done_;
}

}  // namespace evaserve

// Tells ThreadSanitizer what the distribution's absl::Mutex does.
//
// That library is not built with the sanitizer, which then sees neither its locks nor the order
// that they make, and reports every guarded variable as a race. The functions here take the place
// of the library's, call them, and say what they did. Part of every program of the tsan preset.

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/base/options.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

namespace {

#define EVASERVE_STRING_OF(x) #x
#define EVASERVE_STRING(x) EVASERVE_STRING_OF(x)

// The library's own function; `mangled` is its name without the namespace, `qualifier` "K" for a
// const member.
template <typename Function>
Function Original(const char* mangled, const char* qualifier = "") {
  const std::string version = EVASERVE_STRING(ABSL_OPTION_INLINE_NAMESPACE_NAME);
  const std::string name =
      std::string("_ZN") + qualifier + "4absl" + std::to_string(version.size()) + version + mangled;
  void* function = dlsym(RTLD_NEXT, name.c_str());
  if (function == nullptr) {
    std::fprintf(stderr, "no %s in libabsl_synchronization\n", name.c_str());
    std::abort();
  }
  return reinterpret_cast<Function>(function);
}

// Gives the lock up for the length of a call, and takes it again. Conditions that the library
// evaluates for other threads meanwhile are guarded by the lock, which the sanitizer cannot know.
class Unlocked {
 public:
  explicit Unlocked(void* mutex) : mutex_(mutex) {
    __tsan_release(mutex_);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  }
  ~Unlocked() {
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    __tsan_acquire(mutex_);
  }

 private:
  void* mutex_;
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto original = Original<void (*)(Mutex*)>("5Mutex4LockEv");
  original(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static const auto original = Original<void (*)(Mutex*)>("5Mutex6UnlockEv");
  __tsan_release(this);
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  original(this);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

bool Mutex::TryLock() {
  static const auto original = Original<bool (*)(Mutex*)>("5Mutex7TryLockEv");
  const bool locked = original(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void Mutex::ReaderLock() {
  static const auto original = Original<void (*)(Mutex*)>("5Mutex10ReaderLockEv");
  original(this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  static const auto original = Original<void (*)(Mutex*)>("5Mutex12ReaderUnlockEv");
  __tsan_release(this);
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  original(this);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

void Mutex::LockWhen(const Condition& condition) {
  static const auto original =
      Original<void (*)(Mutex*, const Condition&)>("5Mutex8LockWhenERKNS0_9ConditionE");
  Unlocked unlocked(this);
  original(this, condition);
}

void Mutex::Await(const Condition& condition) {
  static const auto original =
      Original<void (*)(Mutex*, const Condition&)>("5Mutex5AwaitERKNS0_9ConditionE");
  Unlocked unlocked(this);
  original(this, condition);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const auto original = Original<bool (*)(Mutex*, const Condition&, Duration)>(
      "5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  Unlocked unlocked(this);
  return original(this, condition, timeout);
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static const auto original = Original<bool (*)(Mutex*, const Condition&, Time)>(
      "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  Unlocked unlocked(this);
  return original(this, condition, deadline);
}

void CondVar::Wait(Mutex* mutex) {
  static const auto original = Original<void (*)(CondVar*, Mutex*)>("7CondVar4WaitEPNS0_5MutexE");
  Unlocked unlocked(mutex);
  original(this, mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static const auto original = Original<bool (*)(CondVar*, Mutex*, Duration)>(
      "7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  Unlocked unlocked(mutex);
  return original(this, mutex, timeout);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto original = Original<bool (*)(CondVar*, Mutex*, Time)>(
      "7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  Unlocked unlocked(mutex);
  return original(this, mutex, deadline);
}

void Notification::Notify() {
  static const auto original = Original<void (*)(Notification*)>("12Notification6NotifyEv");
  __tsan_release(this);
  original(this);
}

void Notification::WaitForNotification() const {
  static const auto original =
      Original<void (*)(const Notification*)>("12Notification19WaitForNotificationEv", "K");
  original(this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static const auto original = Original<bool (*)(const Notification*, Duration)>(
      "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE", "K");
  const bool notified = original(this, timeout);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl

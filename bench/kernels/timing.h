#pragma once

#include <algorithm>
#include <ctime>
#include <vector>

namespace evaserve {

// Processor time of the calling thread: what runs on one thread is compared fairly by it even while
// other programs share the machine.
inline double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Adds up the time between Start and Stop.
class Stopwatch {
 public:
  void Start() { begin_ = ThreadSeconds(); }
  void Stop() { total_ += ThreadSeconds() - begin_; }
  double seconds() const { return total_; }

 private:
  double begin_ = 0;
  double total_ = 0;
};

template <typename Fn>
double SecondsOf(Fn&& fn) {
  Stopwatch watch;
  watch.Start();
  fn();
  watch.Stop();
  return watch.seconds();
}

inline double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace evaserve

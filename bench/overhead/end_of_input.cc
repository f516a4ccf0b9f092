#include "bench/overhead/end_of_input.h"

#include <poll.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace evaserve {

void WaitForEndOfInput(int seconds) {
  const absl::Time end = absl::Now() + absl::Seconds(seconds);
  char ignored[256];
  for (;;) {
    pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    const int64_t left_ms = absl::ToInt64Milliseconds(end - absl::Now());
    if (left_ms <= 0 || poll(&input, 1, static_cast<int>(left_ms)) <= 0) return;
    if (read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0) return;
  }
}

}  // namespace evaserve

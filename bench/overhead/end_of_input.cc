#include "bench/overhead/end_of_input.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "absl/time/clock.h"

namespace evaserve {

bool WaitForEndOfInput(absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  char ignored[256];
  for (;;) {
    pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    const int64_t left_ms = std::max<int64_t>(absl::ToInt64Milliseconds(end - absl::Now()), 0);
    if (poll(&input, 1, static_cast<int>(left_ms)) <= 0) return false;
    if (read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0) return true;
  }
}

}  // namespace evaserve

#pragma once

#include "absl/time/time.h"

namespace evaserve {

// Waits until standard input closes, which it does when whoever started this program has ended, but
// no longer than `limit`. Whether it has closed.
bool WaitForEndOfInput(absl::Duration limit);

}  // namespace evaserve

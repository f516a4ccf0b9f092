#pragma once

namespace evaserve {

// Waits until standard input closes, which it does when whoever started this program has ended, but
// no longer than `seconds`.
void WaitForEndOfInput(int seconds);

}  // namespace evaserve

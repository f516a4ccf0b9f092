#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace evaserve {

// Finds stop strings in a text that comes in pieces, and lets out only what is certain to stay.
//
// The text ends with the first stop string to be complete; of several that are complete at the same
// byte, the longest. How the text is cut into pieces makes no difference.
//
// A string that may still become a match is held back, the rest is let out at once. One byte costs
// amortised O(number of stop strings).
class StopMatcher {
 public:
  // `stops` have at least 1 byte each; there may be none. With `include_stop` the text that is let
  // out contains the stop string.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  // Takes the next bytes and returns the text that is certain now, valid until the next call: with
  // `is_last` all that came. After a match it takes nothing and returns nothing.
  std::string_view Push(std::string_view bytes, bool is_last = false);

  // The stop string that matched.
  const std::optional<std::string>& match() const { return match_; }

 private:
  // Knuth, Morris and Pratt's automaton for one string.
  struct Pattern {
    std::string text;
    std::vector<size_t> fallback;  // [i]: longest proper border of the first i bytes
    size_t matched = 0;            // longest prefix that ends the text so far
  };

  static Pattern MakePattern(std::string text);
  static void Advance(Pattern& pattern, char byte);
  void Finish(const Pattern& pattern);

  std::vector<Pattern> patterns_;
  const bool include_stop_;
  std::string text_;     // let out by the last call, then held back
  size_t released_ = 0;  // bytes of text_ let out by the last call
  std::optional<std::string> match_;
};

}  // namespace evaserve

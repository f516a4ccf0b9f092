#include "server/engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace evaserve {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  // The longest first, so that it wins when several are complete at the same byte.
  std::stable_sort(stops.begin(), stops.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  for (std::string& stop : stops) patterns_.push_back(MakePattern(std::move(stop)));
}

StopMatcher::Pattern StopMatcher::MakePattern(std::string text) {
  Pattern pattern;
  pattern.text = std::move(text);
  pattern.fallback.assign(pattern.text.size() + 1, 0);
  size_t border = 0;
  for (size_t i = 1; i < pattern.text.size(); ++i) {
    while (border > 0 && pattern.text[i] != pattern.text[border]) border = pattern.fallback[border];
    if (pattern.text[i] == pattern.text[border]) ++border;
    pattern.fallback[i + 1] = border;
  }
  return pattern;
}

void StopMatcher::Advance(Pattern& pattern, char byte) {
  size_t& matched = pattern.matched;
  while (matched > 0 && pattern.text[matched] != byte) matched = pattern.fallback[matched];
  if (pattern.text[matched] == byte) ++matched;
}

std::string_view StopMatcher::Push(std::string_view bytes, bool is_last) {
  text_.erase(0, released_);
  released_ = 0;
  for (char byte : bytes) {
    if (match_) break;
    text_.push_back(byte);
    size_t held = 0;
    for (Pattern& pattern : patterns_) {
      Advance(pattern, byte);
      held = std::max(held, pattern.matched);
      if (pattern.matched == pattern.text.size() && !match_) Finish(pattern);
    }
    if (!match_) released_ = text_.size() - held;
  }
  if (is_last) released_ = text_.size();
  return std::string_view(text_).substr(0, released_);
}

void StopMatcher::Finish(const Pattern& pattern) {
  match_ = pattern.text;
  if (!include_stop_) text_.resize(text_.size() - pattern.text.size());
  released_ = text_.size();
}

}  // namespace evaserve

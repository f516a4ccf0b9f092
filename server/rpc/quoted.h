#pragma once

#include <string>
#include <string_view>

namespace evaserve {

// As much of `text`, which may be any bytes, as fits into `max_bytes` of UTF-8: it is cut between
// characters, and each byte that is no UTF-8 becomes U+FFFD. A message of the protocol with
// anything else in a string cannot be read.
std::string AsUtf8(std::string_view text, size_t max_bytes = std::string_view::npos);

// `text` of a client as an error quotes it.
inline std::string Quoted(std::string_view text) { return AsUtf8(text, 64); }

}  // namespace evaserve

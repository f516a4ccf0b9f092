#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace evaserve {

// Where to listen.
struct Address {
  std::string host;  // a name, an IPv4 address, or an IPv6 one without its brackets
  int port = 0;      // 0 takes a free one

  // The host stands for all addresses of this machine.
  bool is_any() const { return host == "0.0.0.0" || host == "::"; }
};

// InvalidArgument, naming what came and what is allowed, unless `text` is HOST:PORT or [IPV6]:PORT.
absl::StatusOr<Address> ParseAddress(const std::string& text);

}  // namespace evaserve

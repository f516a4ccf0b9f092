#include "server/address.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

constexpr int kMaxPort = 65535;

}  // namespace

absl::StatusOr<Address> ParseAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  Address address;
  const bool has_port = colon != std::string::npos && colon > 0 &&
                        absl::SimpleAtoi(text.substr(colon + 1), &address.port) &&
                        address.port >= 0 && address.port <= kMaxPort;
  if (has_port) address.host = text.substr(0, colon);
  const bool is_bracketed = address.host.starts_with('[') && address.host.ends_with(']');
  if (is_bracketed) address.host = address.host.substr(1, address.host.size() - 2);
  const bool is_bare_ipv6 = !is_bracketed && address.host.find(':') != std::string::npos;
  if (has_port && !address.host.empty() && !is_bare_ipv6) return address;
  return absl::InvalidArgumentError(absl::StrCat(
      "got '", text, "', allowed is HOST:PORT or [IPV6]:PORT with a port of 0 .. ", kMaxPort));
}

}  // namespace evaserve

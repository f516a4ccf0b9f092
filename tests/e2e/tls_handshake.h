#pragma once

#include <string>

namespace evaserve {

// What came of a TLS handshake, seen from the client, who trusts everybody.
struct TlsHandshake {
  std::string protocol;  // "TLSv1.3"; empty if it failed
  std::string serial;    // of the server's certificate, hexadecimal
};

// Connects to a port of this machine, for nothing but a handshake, with at most this protocol, one
// of OpenSSL's TLS1_..._VERSION; 0 is the newest. Aborts if nobody listens.
TlsHandshake ShakeHands(int port, int max_protocol = 0);

}  // namespace evaserve

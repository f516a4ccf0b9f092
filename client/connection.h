#pragma once

#include <string>

namespace evaserve {

// How to reach a server, and who to be there.
struct ConnectionOptions {
  // Encrypts the connection, and checks that the server is the one that the target names.
  bool tls = false;
  // PEM files: the authorities that may have issued the server's certificate, empty for those that
  // the system trusts; the client's own certificate and its key, where the server asks for one.
  std::string ca_file = "";
  std::string cert_file = "";
  std::string key_file = "";
  // Sent with every call, where the server asks for one. Visible ASCII.
  std::string token = "";
  // Sends the token also over a connection that is not encrypted and leaves this machine.
  bool token_without_tls = false;
};

}  // namespace evaserve

#include "tests/e2e/tls_handshake.h"

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <memory>

#include "server/rpc/free_with.h"
#include "tests/e2e/connect_to.h"

namespace evaserve {
namespace {

std::string SerialOf(const X509* certificate) {
  const std::unique_ptr<BIGNUM, FreeWith<BN_free>> number(
      ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
  char* hex = BN_bn2hex(number.get());
  std::string serial = hex;
  OPENSSL_free(hex);
  return serial;
}

}  // namespace

TlsHandshake ShakeHands(int port, int max_protocol) {
  const std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>> context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_max_proto_version(context.get(), max_protocol);
  // Debian's OpenSSL would not offer the old protocols itself.
  SSL_CTX_set_min_proto_version(context.get(), TLS1_VERSION);
  SSL_CTX_set_cipher_list(context.get(), "DEFAULT:@SECLEVEL=0");
  const std::unique_ptr<SSL, FreeWith<SSL_free>> ssl(SSL_new(context.get()));
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl.get(), kHttp2, sizeof(kHttp2));

  const int connection = ConnectTo(port);
  SSL_set_fd(ssl.get(), connection);
  TlsHandshake result;
  if (SSL_connect(ssl.get()) == 1) {
    const std::unique_ptr<X509, FreeWith<X509_free>> certificate(
        SSL_get1_peer_certificate(ssl.get()));
    result = {.protocol = SSL_get_version(ssl.get()), .serial = SerialOf(certificate.get())};
  }
  close(connection);
  return result;
}

}  // namespace evaserve

#pragma once

#include <chrono>
#include <memory>
#include <string>

namespace evaserve {

// A certificate and its key, both PEM.
struct Identity {
  std::string cert;
  std::string key;
  std::string serial;  // hexadecimal
};

// What a certificate says.
struct CertificateRequest {
  std::string common_name = "server";
  // As in OpenSSL's subjectAltName.
  std::string names = "DNS:localhost,IP:127.0.0.1";
  std::chrono::seconds begins_in{-3600};
  std::chrono::seconds ends_in{3600};
  int rsa_bits = 0;  // of the key; 0: elliptic, P-256
};

// Issues certificates for tests. Aborts if that fails.
class CertificateAuthority {
 public:
  CertificateAuthority();
  ~CertificateAuthority();

  CertificateAuthority(const CertificateAuthority&) = delete;
  CertificateAuthority& operator=(const CertificateAuthority&) = delete;

  // Its own certificate, which those trust who trust what it issues; PEM.
  const std::string& certificate() const { return certificate_; }

  Identity Issue(const CertificateRequest& request = {}) const;

 private:
  struct Parts;

  const std::unique_ptr<Parts> parts_;
  std::string certificate_;
};

// `identity`'s key behind a password, PEM.
std::string EncryptedKey(const Identity& identity);

}  // namespace evaserve

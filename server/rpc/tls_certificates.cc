#include "server/rpc/tls_certificates.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/log.h"
#include "server/rpc/free_with.h"
#include "server/small_file.h"

namespace evaserve {
namespace {

using Bio = std::unique_ptr<BIO, FreeWith<BIO_free>>;
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, FreeWith<SSL_CTX_free>>;

absl::Status Broken(const std::filesystem::path& file, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(file.string(), ": ", why));
}

// `what`, and the first thing that OpenSSL has to say about it.
std::string WithReason(const char* what) {
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  ERR_clear_error();
  return reason == nullptr ? what : absl::StrCat(what, ": ", reason);
}

Bio Reading(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::StatusOr<std::vector<Certificate>> ParseCertificates(const std::filesystem::path& file,
                                                           const std::string& pem) {
  ERR_clear_error();
  std::vector<Certificate> certificates;
  const Bio bio = Reading(pem);
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(next);
  }
  const bool is_at_end = ERR_GET_REASON(ERR_peek_error()) == PEM_R_NO_START_LINE;
  if (certificates.empty() && is_at_end) {
    ERR_clear_error();
    return Broken(file, "holds no certificate, allowed is PEM: -----BEGIN CERTIFICATE-----");
  }
  if (!is_at_end) return Broken(file, WithReason("a certificate in it cannot be read"));
  ERR_clear_error();
  return certificates;
}

// Instead of asking the terminal for a password.
int NoPassword(char*, int, int, void*) { return -1; }

absl::StatusOr<PrivateKey> ParseKey(const std::filesystem::path& file, const std::string& pem) {
  ERR_clear_error();
  const Bio bio = Reading(pem);
  PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  if (key != nullptr) return key;
  if (pem.find("ENCRYPTED") != std::string::npos) {
    ERR_clear_error();
    return Broken(file, "the key is encrypted, allowed is one without a password");
  }
  return Broken(file, WithReason("holds no private key that can be read as PEM"));
}

// What gRPC will do with them, so that what it would refuse is refused here.
absl::Status TryOut(const TlsFiles& files, const std::vector<Certificate>& chain, EVP_PKEY* key) {
  ERR_clear_error();
  const Context context(SSL_CTX_new(TLS_server_method()));
  if (SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) {
    return Broken(files.cert, WithReason("the certificate cannot be used"));
  }
  if (X509_check_private_key(chain.front().get(), key) != 1) {
    ERR_clear_error();
    return Broken(files.key,
                  absl::StrCat("is not the key of the certificate in ", files.cert.string()));
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1) {
    return Broken(files.key, WithReason("the key cannot be used"));
  }
  return absl::OkStatus();
}

std::string SerialOf(const X509* certificate) {
  const std::unique_ptr<BIGNUM, FreeWith<BN_free>> number(
      ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
  char* hex = BN_bn2hex(number.get());
  std::string serial = hex;
  OPENSSL_free(hex);
  return serial;
}

absl::Time NotAfter(const X509* certificate) {
  tm time = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time) != 1) return absl::InfiniteFuture();
  return absl::FromTM(time, absl::UTCTimeZone());
}

void LogCertificate(const TlsFiles& files, const TlsMaterial& material) {
  const bool has_expired = material.not_after < absl::Now();
  LogEvent(has_expired ? spdlog::level::warn : spdlog::level::info,
           has_expired ? "the certificate has expired" : "certificate",
           {{"file", files.cert.string()},
            {"serial", material.serial},
            {"not_after",
             absl::FormatTime(absl::RFC3339_sec, material.not_after, absl::UTCTimeZone())}});
}

}  // namespace

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files) {
  TlsMaterial material;
  absl::StatusOr<std::string> cert = ReadSmallFile(files.cert);
  if (!cert.ok()) return cert.status();
  const absl::StatusOr<std::vector<Certificate>> chain = ParseCertificates(files.cert, *cert);
  if (!chain.ok()) return chain.status();
  absl::StatusOr<std::string> pem_key = ReadSmallFile(files.key);
  if (!pem_key.ok()) return pem_key.status();
  const absl::StatusOr<PrivateKey> key = ParseKey(files.key, *pem_key);
  if (!key.ok()) return key.status();
  if (absl::Status status = TryOut(files, *chain, key->get()); !status.ok()) return status;
  if (!files.client_ca.empty()) {
    absl::StatusOr<std::string> client_ca = ReadSmallFile(files.client_ca);
    if (!client_ca.ok()) return client_ca.status();
    const auto authorities = ParseCertificates(files.client_ca, *client_ca);
    if (!authorities.ok()) return authorities.status();
    for (const Certificate& authority : *authorities) {
      material.client_ca_not_after =
          std::min(material.client_ca_not_after, NotAfter(authority.get()));
    }
    material.client_ca = *std::move(client_ca);
  }
  material.serial = SerialOf(chain->front().get());
  material.not_after = NotAfter(chain->front().get());
  material.cert = *std::move(cert);
  material.key = *std::move(pem_key);
  return material;
}

absl::StatusOr<std::unique_ptr<TlsCertificates>> TlsCertificates::Load(TlsFiles files) {
  absl::StatusOr<TlsMaterial> material = ReadTlsFiles(files);
  if (!material.ok()) return material.status();
  LogCertificate(files, *material);
  return std::unique_ptr<TlsCertificates>(
      new TlsCertificates(std::move(files), *std::move(material)));
}

TlsCertificates::TlsCertificates(TlsFiles files, TlsMaterial material)
    : files_(std::move(files)),
      material_(std::move(material), [this] { return ReadTlsFiles(files_); }) {}

void TlsCertificates::Reload() {
  const absl::StatusOr<bool> is_new = material_.Reload();
  if (!is_new.ok()) {
    LogEvent(spdlog::level::err, "the certificates are broken, those before stay in use",
             {{"reason", std::string(is_new.status().message())}});
  } else if (*is_new) {
    LogCertificate(files_, *current());
  }
}

}  // namespace evaserve

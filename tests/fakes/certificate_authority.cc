#include "tests/fakes/certificate_authority.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <cstdlib>
#include <functional>

#include "server/rpc/free_with.h"

namespace evaserve {
namespace {

void Check(bool succeeded, const char* what) {
  if (succeeded) return;
  fprintf(stderr, "certificate_authority: %s\n", what);
  abort();
}

using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;

std::string ToPem(const std::function<int(BIO*)>& write) {
  const std::unique_ptr<BIO, FreeWith<BIO_free>> bio(BIO_new(BIO_s_mem()));
  Check(write(bio.get()) == 1, "cannot write PEM");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

PrivateKey NewKey(int rsa_bits) {
  PrivateKey key(rsa_bits == 0 ? EVP_EC_gen("P-256") : EVP_RSA_gen(rsa_bits));
  Check(key != nullptr, "no key");
  return key;
}

std::string SetRandomSerial(X509* certificate) {
  uint64_t serial = 0;
  Check(RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial)) == 1, "no numbers");
  serial |= uint64_t{1} << 62;  // as many digits every time
  serial &= ~(uint64_t{1} << 63);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial);
  char hex[17];
  snprintf(hex, sizeof(hex), "%016lX", serial);
  return hex;
}

void AddExtension(X509* certificate, int nid, const std::string& value) {
  const std::unique_ptr<X509_EXTENSION, FreeWith<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str()));
  Check(extension != nullptr, value.c_str());
  X509_add_ext(certificate, extension.get(), -1);
}

void SetCommonName(X509_NAME* subject, const std::string& name) {
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.data()),
                             static_cast<int>(name.size()), -1, 0);
}

}  // namespace

struct CertificateAuthority::Parts {
  PrivateKey key = NewKey(0);
  Certificate certificate{X509_new()};
};

CertificateAuthority::CertificateAuthority() : parts_(std::make_unique<Parts>()) {
  X509* const own = parts_->certificate.get();
  X509_set_version(own, X509_VERSION_3);
  // Its name differs from other authorities', or clients would try its key on what they issued.
  SetCommonName(X509_get_subject_name(own), "authority " + SetRandomSerial(own));
  X509_set_issuer_name(own, X509_get_subject_name(own));
  X509_gmtime_adj(X509_getm_notBefore(own), -3600);
  X509_gmtime_adj(X509_getm_notAfter(own), 3600);
  X509_set_pubkey(own, parts_->key.get());
  AddExtension(own, NID_basic_constraints, "critical,CA:TRUE");
  Check(X509_sign(own, parts_->key.get(), EVP_sha256()) > 0, "cannot sign");
  certificate_ = ToPem([own](BIO* bio) { return PEM_write_bio_X509(bio, own); });
}

CertificateAuthority::~CertificateAuthority() = default;

Identity CertificateAuthority::Issue(const CertificateRequest& request) const {
  const PrivateKey key = NewKey(request.rsa_bits);
  const Certificate certificate(X509_new());
  X509* const issued = certificate.get();
  X509_set_version(issued, X509_VERSION_3);
  Identity identity = {.serial = SetRandomSerial(issued)};
  SetCommonName(X509_get_subject_name(issued), request.common_name);
  X509_set_issuer_name(issued, X509_get_subject_name(parts_->certificate.get()));
  X509_gmtime_adj(X509_getm_notBefore(issued), request.begins_in.count());
  X509_gmtime_adj(X509_getm_notAfter(issued), request.ends_in.count());
  X509_set_pubkey(issued, key.get());
  AddExtension(issued, NID_subject_alt_name, request.names);
  Check(X509_sign(issued, parts_->key.get(), EVP_sha256()) > 0, "cannot sign");

  identity.cert = ToPem([issued](BIO* bio) { return PEM_write_bio_X509(bio, issued); });
  identity.key = ToPem([&key](BIO* bio) {
    return PEM_write_bio_PKCS8PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  return identity;
}

std::string EncryptedKey(const Identity& identity) {
  const std::unique_ptr<BIO, FreeWith<BIO_free>> bio(
      BIO_new_mem_buf(identity.key.data(), static_cast<int>(identity.key.size())));
  const PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  return ToPem([&key](BIO* out) {
    char password[] = "password";
    return PEM_write_bio_PKCS8PrivateKey(out, key.get(), EVP_aes_128_cbc(), password,
                                         sizeof(password) - 1, nullptr, nullptr);
  });
}

}  // namespace evaserve

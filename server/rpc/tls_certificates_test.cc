#include "server/rpc/tls_certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/time/clock.h"
#include "models/testing/temp_dir.h"
#include "server/testing/captured_log.h"
#include "tests/fakes/certificate_authority.h"

namespace evaserve {
namespace {

using ::testing::HasSubstr;

class TlsCertificatesTest : public ::testing::Test {
 protected:
  TlsCertificatesTest() {
    Write(identity_);
    WriteFile(files_.client_ca, authority_.certificate());
  }

  void Write(const Identity& identity) {
    WriteFile(files_.cert, identity.cert);
    WriteFile(files_.key, identity.key);
  }

  // The error of reading the files now, which names `file`.
  std::string Error(const std::filesystem::path& file) const {
    const absl::Status status = ReadTlsFiles(files_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    const std::string message(status.message());
    EXPECT_EQ(message.substr(0, message.find(": ")), file.string()) << message;
    return message;
  }

  TempDir directory_;
  TlsFiles files_ = {.cert = directory_.path() / "cert.pem",
                     .key = directory_.path() / "key.pem",
                     .client_ca = directory_.path() / "ca.pem"};
  CertificateAuthority authority_;
  Identity identity_ = authority_.Issue();
};

TEST_F(TlsCertificatesTest, ReadsWhatTheFilesHold) {
  const auto material = ReadTlsFiles(files_);

  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_EQ(material->cert, identity_.cert);
  EXPECT_EQ(material->key, identity_.key);
  EXPECT_EQ(material->client_ca, authority_.certificate());
  EXPECT_EQ(material->serial, identity_.serial);
  EXPECT_NEAR(absl::ToDoubleSeconds(material->not_after - absl::Now()), 3600, 60);
}

TEST_F(TlsCertificatesTest, ClientsNeedNoCertificatesWithoutTheirAuthority) {
  files_.client_ca = "";

  const auto material = ReadTlsFiles(files_);

  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_EQ(material->client_ca, "");
  EXPECT_EQ(material->client_ca_not_after, absl::InfiniteFuture());
}

TEST_F(TlsCertificatesTest, TheFirstAuthorityThatEndsIsTold) {
  const std::string soon = authority_.Issue({.ends_in = std::chrono::seconds(600)}).cert;
  const std::string later = authority_.Issue().cert;
  WriteFile(files_.client_ca, later + soon + later);

  const auto material = ReadTlsFiles(files_);

  ASSERT_TRUE(material.ok()) << material.status();
  EXPECT_NEAR(absl::ToDoubleSeconds(material->client_ca_not_after - absl::Now()), 600, 60);
}

TEST_F(TlsCertificatesTest, AChainIsReadWhole) {
  WriteFile(files_.cert, identity_.cert + authority_.certificate());
  EXPECT_TRUE(ReadTlsFiles(files_).ok());

  WriteFile(files_.cert, identity_.cert + "-----BEGIN CERTIFICATE-----\nAAAA\n");
  EXPECT_THAT(Error(files_.cert), HasSubstr("cannot be read"));
}

TEST_F(TlsCertificatesTest, AMissingFileIsNamed) {
  for (const auto& file : {files_.cert, files_.key, files_.client_ca}) {
    const auto away = file.string() + ".away";
    std::filesystem::rename(file, away);
    EXPECT_THAT(Error(file), HasSubstr("No such file"));
    std::filesystem::rename(away, file);
  }
}

TEST_F(TlsCertificatesTest, ADirectoryIsNoFile) {
  files_.key = directory_.path();
  EXPECT_THAT(Error(files_.key), HasSubstr("no regular file"));
}

TEST_F(TlsCertificatesTest, AHugeFileIsNotRead) {
  std::filesystem::resize_file(files_.cert, 2 << 20);
  EXPECT_THAT(Error(files_.cert), HasSubstr("larger"));
}

TEST_F(TlsCertificatesTest, GarbageIsNoCertificateAndNoKey) {
  WriteFile(files_.client_ca, "garbage");
  EXPECT_THAT(Error(files_.client_ca), HasSubstr("holds no certificate"));
  WriteFile(files_.key, "garbage");
  EXPECT_THAT(Error(files_.key), HasSubstr("no private key"));
  WriteFile(files_.cert, identity_.key);
  EXPECT_THAT(Error(files_.cert), HasSubstr("holds no certificate"));
}

TEST_F(TlsCertificatesTest, AKeyOfAnotherCertificateIsRefused) {
  WriteFile(files_.key, authority_.Issue().key);

  EXPECT_THAT(Error(files_.key),
              HasSubstr("not the key of the certificate in " + files_.cert.string()));
}

TEST_F(TlsCertificatesTest, AnEncryptedKeyIsRefusedWithoutAskingAnybody) {
  WriteFile(files_.key, EncryptedKey(identity_));
  EXPECT_THAT(Error(files_.key), HasSubstr("encrypted"));
}

TEST_F(TlsCertificatesTest, AWeakKeyIsRefused) {
  Write(authority_.Issue({.rsa_bits = 1024}));
  EXPECT_THAT(Error(files_.cert), HasSubstr("too small"));
}

TEST_F(TlsCertificatesTest, ReloadTakesNewCertificates) {
  const auto certificates = TlsCertificates::Load(files_);
  ASSERT_TRUE(certificates.ok()) << certificates.status();
  const auto before = (*certificates)->current();
  const Identity renewed = authority_.Issue();
  const CapturedLog log;

  (*certificates)->Reload();
  EXPECT_EQ((*certificates)->current(), before);
  EXPECT_EQ(log.Count("serial"), 0);

  Write(renewed);
  (*certificates)->Reload();
  EXPECT_EQ((*certificates)->current()->serial, renewed.serial);
  EXPECT_EQ(log.Count(renewed.serial), 1);
}

TEST_F(TlsCertificatesTest, BrokenFilesAreToldOnceAndChangeNothing) {
  const auto certificates = TlsCertificates::Load(files_);
  ASSERT_TRUE(certificates.ok()) << certificates.status();
  const auto before = (*certificates)->current();
  const CapturedLog log;

  WriteFile(files_.cert, authority_.Issue().cert);  // the key is yet to come
  (*certificates)->Reload();
  (*certificates)->Reload();
  EXPECT_EQ((*certificates)->current(), before);
  EXPECT_EQ(log.Count("broken"), 1);

  std::filesystem::remove(files_.key);
  (*certificates)->Reload();
  (*certificates)->Reload();
  EXPECT_EQ((*certificates)->current(), before);
  EXPECT_EQ(log.Count("broken"), 2);
}

TEST_F(TlsCertificatesTest, AnExpiredCertificateIsTold) {
  Write(authority_.Issue({.ends_in = std::chrono::seconds(-1)}));
  const CapturedLog log;

  const auto certificates = TlsCertificates::Load(files_);

  ASSERT_TRUE(certificates.ok()) << certificates.status();
  EXPECT_EQ(log.Count("expired"), 1);
}

}  // namespace
}  // namespace evaserve

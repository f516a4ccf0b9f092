#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/reloaded.h"

namespace evaserve {

// Where a server's certificates are, all PEM.
struct TlsFiles {
  std::filesystem::path cert;       // the server's, followed by those between it and its CA
  std::filesystem::path key;        // of the first one in `cert`, not encrypted
  std::filesystem::path client_ca;  // if not empty, clients need a certificate of one of these
};

// What those files hold.
struct TlsMaterial {
  std::string cert;
  std::string key;
  std::string client_ca;
  // Of the server's own certificate:
  std::string serial;  // hexadecimal
  absl::Time not_after = absl::InfiniteFuture();
  // When the first of the authorities' certificates ends; never, if there are none.
  absl::Time client_ca_not_after = absl::InfiniteFuture();

  friend bool operator==(const TlsMaterial&, const TlsMaterial&) = default;
};

// InvalidArgument, "FILE: why", if a file cannot be read, is not what it should be, or the key is
// not that of the certificate.
absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsFiles& files);

// A server's certificates, which may change while it runs. Thread-safe.
class TlsCertificates {
 public:
  // Errors are ReadTlsFiles()'s.
  static absl::StatusOr<std::unique_ptr<TlsCertificates>> Load(TlsFiles files);

  // What new connections use.
  std::shared_ptr<const TlsMaterial> current() const { return material_.current(); }

  bool clients_need_certificates() const { return !files_.client_ca.empty(); }

  // Looks at the files again. What they hold now is used from here on, unless it is broken: then
  // what there was is kept, and the log hears of it once.
  void Reload();

 private:
  TlsCertificates(TlsFiles files, TlsMaterial material);

  const TlsFiles files_;
  Reloaded<TlsMaterial> material_;
};

}  // namespace evaserve

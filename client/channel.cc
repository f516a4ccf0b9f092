#include "client/channel.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

// Whether calls of `target` stay on this machine.
bool IsLocal(const std::string& target) {
  if (absl::StartsWith(target, "unix:")) return true;
  const std::string host = target.substr(0, target.rfind(':'));
  in_addr ip = {};
  if (inet_pton(AF_INET, host.c_str(), &ip) == 1) return ntohl(ip.s_addr) >> 24 == 127;
  return host == "localhost" || host == "[::1]";
}

absl::Status CheckToken(const std::string& target, const ConnectionOptions& options) {
  if (!std::all_of(options.token.begin(), options.token.end(), absl::ascii_isgraph)) {
    return absl::InvalidArgumentError("token: allowed is visible ASCII");
  }
  if (options.token.empty() || options.tls || options.token_without_tls || IsLocal(target)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a token sent to ", target, " without TLS could be overheard"));
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path);
  if (!file) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path, ": ", strerror(errno)));
  }
  std::ostringstream text;
  text << file.rdbuf();
  if (!absl::StrContains(text.str(), "-----BEGIN ")) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is no PEM file"));
  }
  return text.str();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsCredentials(
    const ConnectionOptions& options) {
  if (options.cert_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError("a certificate needs its key, and a key its certificate");
  }
  grpc::SslCredentialsOptions ssl;
  for (const auto& [path, pem] : {std::pair(&options.ca_file, &ssl.pem_root_certs),
                                  std::pair(&options.cert_file, &ssl.pem_cert_chain),
                                  std::pair(&options.key_file, &ssl.pem_private_key)}) {
    absl::StatusOr<std::string> text = ReadPem(*path);
    if (!text.ok()) return text.status();
    *pem = *std::move(text);
  }
  return grpc::SslCredentials(ssl);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(
    const std::string& target, const ConnectionOptions& options,
    const grpc::ChannelArguments& arguments) {
  if (absl::Status status = CheckToken(target, options); !status.ok()) return status;
  if (!options.tls) {
    return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  }
  const auto credentials = TlsCredentials(options);
  if (!credentials.ok()) return credentials.status();
  return grpc::CreateCustomChannel(target, *credentials, arguments);
}

}  // namespace evaserve

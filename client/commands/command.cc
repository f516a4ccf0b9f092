#include "client/commands/command.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace evaserve {

ExitCode Fail(const absl::Status& status) {
  std::cerr << "eva: " << absl::StatusCodeToString(status.code()) << ": " << status.message()
            << std::endl;
  if (absl::IsDeadlineExceeded(status)) return kExitDeadline;
  if (absl::IsCancelled(status)) return kExitInterrupted;
  return kExitFailed;
}

ExitCode FailUsage(std::string_view message) {
  std::cerr << "eva: " << message << std::endl;
  return kExitUsage;
}

absl::StatusOr<std::string> ReadInput(const std::string& path) {
  std::ostringstream bytes;
  if (path == "-") {
    bytes << std::cin.rdbuf();
    return bytes.str();
  }
  std::ifstream file(path, std::ios::binary);
  std::error_code error;  // such a path cannot be opened either
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path, ": it is a directory"));
  }
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", strerror(errno)));
  bytes << file.rdbuf();
  if (file.bad()) return absl::DataLossError(absl::StrCat("cannot read ", path));
  return bytes.str();
}

absl::StatusOr<std::vector<std::string>> ReadLines() {
  const auto input = ReadInput("-");
  if (!input.ok()) return input.status();
  const absl::string_view text = *input;
  return absl::StrSplit(absl::StripSuffix(text, "\n"), '\n');
}

absl::StatusOr<Client> Connect(const GlobalFlags& flags) {
  ConnectionOptions options = flags.connection;
  // Who names a certificate wants TLS.
  options.tls |= !options.ca_file.empty() || !options.cert_file.empty();
  if (!flags.token_file.empty()) {
    auto token = ReadInput(flags.token_file);
    if (!token.ok()) return token.status();
    options.token = *std::move(token);
  } else if (const char* token = std::getenv("EVA_TOKEN")) {
    options.token = token;
  }
  absl::StripAsciiWhitespace(&options.token);
  return Client::Connect(flags.server, options);
}

absl::StatusOr<size_t> MaxTextsPerRequest(size_t num_texts, size_t most, const Session& session) {
  if (num_texts <= 1) return most;
  const auto config = session.client.ModelConfig(session.flags.model, session.call);
  if (!config.ok()) return config.status();
  if (config->max_batch_size() <= 0) return most;  // any number
  return std::min(most, static_cast<size_t>(config->max_batch_size()));
}

void PrintBytes(std::string_view bytes) {
  fwrite(bytes.data(), 1, bytes.size(), stdout);
  fflush(stdout);
}

}  // namespace evaserve

#include "server/rpc/token_list.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace evaserve {
namespace {

constexpr size_t kMaxName = 64;

absl::StatusOr<std::string> ParseName(absl::string_view text) {
  const bool is_plain = std::all_of(text.begin(), text.end(), absl::ascii_isgraph);
  if (!is_plain || text.size() > kMaxName) {
    return absl::InvalidArgumentError(
        absl::StrCat("name: allowed are 1 to ", kMaxName, " visible ASCII characters"));
  }
  return std::string(text);
}

absl::StatusOr<Sha256> ParseSha256(absl::string_view text) {
  Sha256 sha256;
  if (text.size() != 2 * sha256.size() ||
      !std::all_of(text.begin(), text.end(), absl::ascii_isxdigit)) {
    return absl::InvalidArgumentError(absl::StrCat("sha256: got ", text.size(),
                                                   " characters, allowed are ", 2 * sha256.size(),
                                                   " hexadecimal digits"));
  }
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), sha256.begin());
  return sha256;
}

absl::Status ParseModels(absl::string_view text, Token& token) {
  token.allows_all_models = text == "*";
  if (token.allows_all_models) return absl::OkStatus();
  for (const absl::string_view name : absl::StrSplit(text, ',')) {
    if (name.empty() || name == "*") {
      return absl::InvalidArgumentError(
          "models: allowed are names with a comma between two, or one *");
    }
    token.models.emplace(name);
  }
  return absl::OkStatus();
}

absl::StatusOr<Token> ParseToken(const std::vector<absl::string_view>& columns) {
  if (columns.size() < 3 || columns.size() > 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", columns.size(), " columns, allowed are NAME SHA256 MODELS [admin]"));
  }
  Token token;
  absl::StatusOr<std::string> name = ParseName(columns[0]);
  if (!name.ok()) return name.status();
  token.name = *std::move(name);
  const absl::StatusOr<Sha256> sha256 = ParseSha256(columns[1]);
  if (!sha256.ok()) return sha256.status();
  token.sha256 = *sha256;
  if (absl::Status status = ParseModels(columns[2], token); !status.ok()) return status;
  token.allows_administration = columns.size() == 4;
  if (token.allows_administration && columns[3] != "admin") {
    return absl::InvalidArgumentError("admin: allowed is the word admin, or nothing");
  }
  return token;
}

absl::Status AtLine(size_t line, const absl::Status& status) {
  return absl::InvalidArgumentError(absl::StrCat(line, ": ", status.message()));
}

}  // namespace

Sha256 Sha256Of(std::string_view bytes) {
  Sha256 sha256;
  SHA256(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), sha256.data());
  return sha256;
}

bool EqualInConstantTime(const Sha256& a, const Sha256& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::StatusOr<TokenList> TokenList::Parse(std::string_view text) {
  TokenList list;
  std::map<Sha256, size_t> lines;
  size_t line_number = 0;
  for (absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++line_number;
    const std::vector<absl::string_view> columns =
        absl::StrSplit(line.substr(0, line.find('#')), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (columns.empty()) continue;
    absl::StatusOr<Token> token = ParseToken(columns);
    if (!token.ok()) return AtLine(line_number, token.status());
    const auto [same, is_new] = lines.emplace(token->sha256, line_number);
    if (!is_new) {
      return AtLine(line_number, absl::InvalidArgumentError(
                                     absl::StrCat("sha256: is that of line ", same->second)));
    }
    list.tokens_.push_back(*std::move(token));
  }
  // What a file that is still being written looks like too.
  if (list.tokens_.empty()) {
    return AtLine(line_number, absl::InvalidArgumentError("got no token, allowed is one or more"));
  }
  return list;
}

const Token* TokenList::Find(std::string_view token) const {
  const Sha256 sha256 = Sha256Of(token);
  const Token* found = nullptr;
  for (const Token& entry : tokens_) {
    if (EqualInConstantTime(entry.sha256, sha256)) found = &entry;
  }
  return found;
}

}  // namespace evaserve

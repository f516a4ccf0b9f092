#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace evaserve {

using Sha256 = std::array<uint8_t, 32>;

Sha256 Sha256Of(std::string_view bytes);

// Takes the same time wherever they differ.
bool EqualInConstantTime(const Sha256& a, const Sha256& b);

// What one token allows. The token itself is nowhere in the server.
struct Token {
  std::string name;  // for the log; several tokens may share it
  Sha256 sha256{};
  bool allows_all_models = false;
  std::set<std::string, std::less<>> models{};
  bool allows_administration = false;  // to load and unload models and to change the log

  bool Allows(std::string_view model) const { return allows_all_models || models.contains(model); }

  friend bool operator==(const Token&, const Token&) = default;
};

// A file of tokens, one a line, with '#' before comments:
//
//   NAME  SHA256-IN-HEXADECIMAL  MODEL,MODEL,...  [admin]
//
// or * for all models. Immutable.
class TokenList {
 public:
  // InvalidArgument, "LINE: COLUMN: what is allowed", for a text that is no such list or has no
  // token. It quotes nothing: somebody may have put a token where its hash belongs.
  static absl::StatusOr<TokenList> Parse(std::string_view text);

  // The entry of a token, or null. Compares with every entry, whatever is found.
  const Token* Find(std::string_view token) const;

  size_t size() const { return tokens_.size(); }

  friend bool operator==(const TokenList&, const TokenList&) = default;

 private:
  std::vector<Token> tokens_;
};

}  // namespace evaserve

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <iostream>
#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/commands/command.h"
#include "client/commands/json.h"

namespace evaserve {
namespace {

struct TokenFlags {
  std::string name;
  std::string models;
  bool admin = false;
};

// 256 random bits after a mark by which programs that look for lost secrets can tell it.
absl::StatusOr<std::string> RandomToken() {
  unsigned char bytes[32];
  if (RAND_bytes(bytes, sizeof(bytes)) != 1) return absl::InternalError("no random numbers");
  return absl::StrCat(
      "eva_", absl::WebSafeBase64Escape({reinterpret_cast<const char*>(bytes), sizeof(bytes)}));
}

std::string Sha256Hex(const std::string& text) {
  unsigned char digest[32];
  EVP_Digest(text.data(), text.size(), digest, nullptr, EVP_sha256(), nullptr);
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest), sizeof(digest)});
}

ExitCode RunToken(const TokenFlags& flags, const Session& session) {
  const absl::StatusOr<std::string> token = RandomToken();
  if (!token.ok()) return Fail(token.status());
  const std::string entry = absl::StrCat(flags.name, " ", Sha256Hex(*token), " ", flags.models,
                                         flags.admin ? " admin" : "");
  if (session.flags.json) {
    PrintBytes(ToLine({{"token", *token}, {"entry", entry}}));
  } else {
    PrintBytes(entry + "\n");
    std::cerr << *token << std::endl;
  }
  return kExitOk;
}

// For CLI11: empty, or what is wrong.
std::string IsOneWord(const std::string& text) {
  const bool is_word = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '#';
  });
  return is_word ? "" : "allowed are visible ASCII characters but '#', at least one";
}

}  // namespace

Command AddTokenCommand(CLI::App& eva) {
  CLI::App& app = *eva.add_subcommand("token",
                                      "Make a token: its entry for the server's --auth-tokens to "
                                      "standard output, the token itself, "
                                      "which nothing keeps, to standard error. Talks to no server");
  auto flags = std::make_shared<TokenFlags>();
  app.add_option("NAME", flags->name, "Whose it is, for the server's log")
      ->required()
      ->check(IsOneWord);
  app.add_option("--may-use", flags->models, "Models, separated by commas, or * for all")
      ->required()
      ->check(IsOneWord);
  app.add_flag("--admin", flags->admin, "May also load and unload models");
  return {.app = &app,
          .run = [flags](const Session& session) { return RunToken(*flags, session); }};
}

}  // namespace evaserve

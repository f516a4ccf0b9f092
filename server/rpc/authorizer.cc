#include "server/rpc/authorizer.h"

#include <grpc/grpc_security_constants.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/log.h"
#include "server/rpc/call_info.h"
#include "server/small_file.h"

namespace evaserve {
namespace {

const std::map<std::string_view, MethodAccess> kAccess = {
    {"/grpc.health.v1.Health/Check", MethodAccess::kOpen},
    {"/grpc.health.v1.Health/Watch", MethodAccess::kOpen},
    {"/inference.GRPCInferenceService/ServerLive", MethodAccess::kOpen},
    {"/inference.GRPCInferenceService/ServerReady", MethodAccess::kOpen},
    {"/inference.GRPCInferenceService/RepositoryModelLoad", MethodAccess::kAdmin},
    {"/inference.GRPCInferenceService/RepositoryModelUnload", MethodAccess::kAdmin},
    {"/inference.GRPCInferenceService/LogSettings", MethodAccess::kAdmin},
};

// What follows "Bearer" (RFC 6750; in any case, RFC 9110), or empty.
std::string_view BearerToken(std::string_view authorization) {
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view scheme = authorization.substr(0, kScheme.size());
  if (!absl::EqualsIgnoreCase({scheme.data(), scheme.size()}, "Bearer ")) return "";
  const size_t begin = authorization.find_first_not_of(' ', kScheme.size());
  return begin == std::string_view::npos ? "" : authorization.substr(begin);
}

// The name in the certificate that the client has shown, or empty.
std::string CertificateName(const grpc::ServerContextBase& context) {
  const std::vector<grpc::string_ref> names =
      context.auth_context()->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
  return names.empty() ? "" : std::string(names.front().data(), names.front().size());
}

}  // namespace

MethodAccess AccessOf(std::string_view method) {
  const auto found = kAccess.find(method);
  return found == kAccess.end() ? MethodAccess::kToken : found->second;
}

absl::StatusOr<TokenList> ReadTokenFile(const std::filesystem::path& file) {
  const absl::StatusOr<std::string> text = ReadSmallFile(file);
  if (!text.ok()) return text.status();
  absl::StatusOr<TokenList> tokens = TokenList::Parse(*text);
  if (tokens.ok()) return tokens;
  return absl::InvalidArgumentError(absl::StrCat(file.string(), ":", tokens.status().message()));
}

absl::StatusOr<std::unique_ptr<Authorizer>> Authorizer::Load(std::filesystem::path file) {
  absl::StatusOr<TokenList> tokens = ReadTokenFile(file);
  if (!tokens.ok()) return tokens.status();
  return std::unique_ptr<Authorizer>(new Authorizer(std::move(file), *std::move(tokens)));
}

Authorizer::Authorizer(std::filesystem::path file, TokenList tokens) : file_(std::move(file)) {
  tokens_.emplace(std::move(tokens), [this] { return ReadTokenFile(file_); });
  LogTokens();
}

void Authorizer::LogTokens() const {
  LogEvent(spdlog::level::info, "tokens",
           {{"file", file_.string()}, {"count", tokens_->current()->size()}});
}

absl::Status Authorizer::Check(std::string_view method, std::string_view authorization) const {
  if (!asks_for_tokens()) return absl::OkStatus();
  switch (AccessOf(method)) {
    case MethodAccess::kOpen:
      return absl::OkStatus();
    case MethodAccess::kToken:
      break;
    case MethodAccess::kAdmin:
      return CallerWith(authorization).CheckAdmin();
  }
  return CallerWith(authorization).CheckKnown();
}

Caller Authorizer::CallerOf(const grpc::ServerContextBase& context) const {
  if (!asks_for_tokens()) return Caller::Anyone(CertificateName(context));
  return CallerWith(OnlyMetadataOf(context, "authorization"));
}

Caller Authorizer::CallerWith(std::string_view authorization) const {
  if (!asks_for_tokens()) return {};
  std::shared_ptr<const TokenList> tokens = tokens_->current();
  const std::string_view token = BearerToken(authorization);
  const Token* found = token.empty() ? nullptr : tokens->Find(token);
  return found == nullptr ? Caller() : Caller({std::move(tokens), found});
}

void Authorizer::Reload() {
  if (!asks_for_tokens()) return;
  const absl::StatusOr<bool> is_new = tokens_->Reload();
  if (!is_new.ok()) {
    LogEvent(spdlog::level::err, "the tokens are broken, those before stay in use",
             {{"reason", std::string(is_new.status().message())}});
  } else if (*is_new) {
    LogTokens();
  }
}

}  // namespace evaserve

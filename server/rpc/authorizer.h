#pragma once

#include <grpcpp/server_context.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/reloaded.h"
#include "server/rpc/caller.h"
#include "server/rpc/token_list.h"

namespace evaserve {

// What a method asks of its caller.
enum class MethodAccess {
  kOpen,   // nothing: health, for probes
  kToken,  // a token, and permission for the models that it names
  kAdmin,  // a token that allows administration
};

// Of "/package.Service/Method". Methods that nobody has thought of are kToken.
MethodAccess AccessOf(std::string_view method);

// Reads --auth-tokens. InvalidArgument, "FILE:LINE: why", if it is no list of tokens.
absl::StatusOr<TokenList> ReadTokenFile(const std::filesystem::path& file);

// Decides who may call what. Thread-safe.
class Authorizer {
 public:
  // Asks for no tokens.
  Authorizer() = default;

  // Errors are ReadTokenFile()'s.
  static absl::StatusOr<std::unique_ptr<Authorizer>> Load(std::filesystem::path file);

  bool asks_for_tokens() const { return tokens_.has_value(); }

  // Whether a call of `method`, "/package.Service/Method", may go on. `authorization` is the
  // metadata of that name, empty if there is none. Errors: Unauthenticated, the same for a missing
  // and a wrong token; PermissionDenied if the token does not allow administration.
  absl::Status Check(std::string_view method, std::string_view authorization) const;

  // Who calls: the token's owner, or nobody if the token has been taken from the list since
  // Check(). Where no tokens are asked for: anyone, by the name in the client's certificate if it
  // has one.
  Caller CallerOf(const grpc::ServerContextBase& context) const;

  // Who shows `authorization`, as in Check(): nobody where no tokens are asked for.
  Caller CallerWith(std::string_view authorization) const;

  // Looks at the file again. What it holds is used from here on, also for requests on streams that
  // are open, unless it is broken: then the list before is kept, and the log hears of it once.
  void Reload();

 private:
  Authorizer(std::filesystem::path file, TokenList tokens);

  void LogTokens() const;

  const std::filesystem::path file_;
  std::optional<Reloaded<TokenList>> tokens_;
};

}  // namespace evaserve

#include "server/rpc/caller.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace evaserve {
namespace {

// Names come from strangers; a message stays readable.
constexpr size_t kMaxToldName = 64;

}  // namespace

Caller Caller::Anyone(std::string name) {
  return Caller(std::make_shared<const Token>(
      Token{.name = std::move(name), .allows_all_models = true, .allows_administration = true}));
}

absl::Status Caller::CheckKnown() const {
  if (token_ != nullptr) return absl::OkStatus();
  return absl::UnauthenticatedError(
      "this call needs a valid token, in metadata 'authorization: Bearer TOKEN'");
}

absl::Status Caller::CheckModel(std::string_view model) const {
  if (absl::Status status = CheckKnown(); !status.ok()) return status;
  if (MayUse(model)) return absl::OkStatus();
  const absl::string_view told(model.data(), std::min(model.size(), kMaxToldName));
  return absl::PermissionDeniedError(
      absl::StrCat("the token '", name(), "' may not use model '", told, "'"));
}

absl::Status Caller::CheckAdmin() const {
  if (absl::Status status = CheckKnown(); !status.ok()) return status;
  if (token_->allows_administration) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "the token '", name(), "' may not administer the server: it is not marked admin"));
}

}  // namespace evaserve

#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "server/rpc/token_list.h"

namespace evaserve {

// Who makes a call, and which models it may use. Immutable.
class Caller {
 public:
  // Nobody, who may use nothing.
  Caller() = default;

  // Who showed a token.
  explicit Caller(std::shared_ptr<const Token> token) : token_(std::move(token)) {}

  // Anyone, who may use everything, where no tokens are asked for.
  static Caller Anyone(std::string name);

  // For the log; may be empty.
  std::string name() const { return token_ == nullptr ? "" : token_->name; }

  bool MayUse(std::string_view model) const { return token_ != nullptr && token_->Allows(model); }

  // Unauthenticated for nobody.
  absl::Status CheckKnown() const;
  // Also PermissionDenied, naming the model, unless MayUse() it.
  absl::Status CheckModel(std::string_view model) const;
  // Also PermissionDenied unless the token allows administration.
  absl::Status CheckAdmin() const;

 private:
  std::shared_ptr<const Token> token_;
};

}  // namespace evaserve

#pragma once

#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace evaserve {

// What fn() returns, a Status or a StatusOr; or, where the standard library throws for lack of
// memory, ResourceExhausted, beginning with `what`.
template <typename Fn>
std::invoke_result_t<Fn> GuardMemory(const std::string& what, Fn fn) {
  const auto error = [&] {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": not enough memory"));
  };
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    return error();
  } catch (const std::length_error&) {  // more than there can be
    return error();
  }
}

}  // namespace evaserve

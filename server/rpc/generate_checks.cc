#include "server/rpc/generate_checks.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace evaserve {
namespace {

absl::Status CheckStops(const std::vector<std::string>& stops) {
  if (stops.size() > kMaxStops) {
    return absl::InvalidArgumentError(
        absl::StrCat("stop has ", stops.size(), " strings, allowed are at most ", kMaxStops));
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    if (!stops[i].empty() && stops[i].size() <= kMaxStopBytes) continue;
    return absl::InvalidArgumentError(absl::StrCat("stop[", i, "] has ", stops[i].size(),
                                                   " bytes, allowed are 1 .. ", kMaxStopBytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckGenerateOptions(const GenerateOptions& options) {
  if (absl::Status status = Validate(options.sampling); !status.ok()) return status;
  if (options.max_new_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_new_tokens is ", options.max_new_tokens, ", it must be at least 1"));
  }
  return CheckStops(options.stop);
}

absl::StatusOr<int64_t> CheckedInteger(const char* field, uint64_t value, int64_t max) {
  if (value <= static_cast<uint64_t>(max)) return static_cast<int64_t>(value);
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", allowed is at most ", max));
}

}  // namespace evaserve

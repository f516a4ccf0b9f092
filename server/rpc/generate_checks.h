#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/engine/request.h"

namespace evaserve {

inline constexpr int kMaxStops = 16;
inline constexpr int kMaxStopBytes = 256;

// What a client may ask of a generation, checked before the engine sees it. InvalidArgument names
// the field, its value and what is allowed.
absl::Status CheckGenerateOptions(const GenerateOptions& options);

// A number from a wire that has more of them than ours: InvalidArgument above `max`.
absl::StatusOr<int64_t> CheckedInteger(const char* field, uint64_t value, int64_t max);

}  // namespace evaserve

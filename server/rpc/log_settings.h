#pragma once

#include "absl/status/status.h"
#include "inference/open_inference.pb.h"

namespace evaserve {

// Changes the process's log as asked. InvalidArgument, naming the setting, what came and what is
// allowed, for a bad one; then nothing is changed.
absl::Status ApplyLogSettings(const inference::LogSettingsRequest& request);

void FillLogSettings(inference::LogSettingsResponse& response);

}  // namespace evaserve

#pragma once

#include "server/config.h"
#include "server/repository/repository_control.h"

namespace evaserve {

// Which models `config` asks for, and how they are loaded and served. on_missing and on_ignored are
// left to the caller.
RepositoryControl::Options ControlOptions(const Config& config);

}  // namespace evaserve

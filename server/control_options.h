#pragma once

#include "server/config.h"
#include "server/repository/repository_control.h"

namespace evaserve {

// Which models `config` asks for, and how they are loaded and served. Whoever controls them has
// still to be told what is missing or ignored.
RepositoryControl::Options ControlOptions(const Config& config);

}  // namespace evaserve

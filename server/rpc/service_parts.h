#pragma once

#include "server/metrics/inference_statistics.h"
#include "server/repository/model_repository.h"
#include "server/repository/repository_control.h"
#include "server/rpc/request_log.h"
#include "server/rpc/serving_state.h"

namespace evaserve {

// What the services work on. All of it must outlive the gRPC server.
struct ServiceParts {
  ModelRepository& models;
  RepositoryControl& control;
  const InferenceStatistics& statistics;
  const ServingState& state;
  RequestLog& log;
};

}  // namespace evaserve

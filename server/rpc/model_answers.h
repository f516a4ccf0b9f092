#pragma once

#include "inference/open_inference.pb.h"
#include "server/metrics/inference_statistics.h"
#include "server/repository/model_repository.h"

namespace evaserve {

// What the Open Inference Protocol tells about a model that is ready.

void FillMetadata(const ModelRepository& models, const ReadyModel& model,
                  inference::ModelMetadataResponse& response);

void FillConfig(const ReadyModel& model, inference::ModelConfig& config);

void FillStatistics(const ReadyModel& model, const ModelSums& sums,
                    inference::ModelStatistics& statistics);

}  // namespace evaserve

#pragma once

#include "inference/open_inference.pb.h"
#include "models/tensor_model.h"
#include "server/engine/tensor_engine.h"

namespace evaserve {

// What the Open Inference Protocol tells of a model of tensors: model_answers.h adds the rest.
void FillTensorMetadata(const TensorModelInfo& info, inference::ModelMetadataResponse& response);
void FillTensorConfig(const TensorEngine& engine, inference::ModelConfig& config);

}  // namespace evaserve

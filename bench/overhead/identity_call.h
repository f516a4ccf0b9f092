#pragma once

#include <cstdint>
#include <string>

#include "inference/open_inference.pb.h"

namespace evaserve {

// A request to a model that answers OUTPUT0 = INPUT0: FP32 [1, elements], as raw contents.
inference::ModelInferRequest MakeIdentityRequest(const std::string& model, int elements);

// Gives a request of MakeIdentityRequest() the id `number`, and an element of its own by which an
// answer to another one is noticed.
void MakeDifferent(inference::ModelInferRequest& request, int64_t number);

// What is wrong with an answer; empty if it is right.
std::string WhatIsWrong(const inference::ModelInferRequest& request,
                        const inference::ModelInferResponse& response);

}  // namespace evaserve

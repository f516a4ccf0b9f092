#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "evaserve/v1/inference.pb.h"
#include "models/model.h"
#include "server/engine/request.h"

namespace evaserve {

// From evaserve.v1's messages to the engine's requests, without id, deadline and sink. All are
// InvalidArgument, naming the field, its value and what is allowed, for what the protocol forbids.
// What an absent field means comes from `info`. Of a prompt in pieces, `bytes_to_come` follow.
absl::StatusOr<Request> MakeRequest(const v1::GenerateRequest& request, const ModelInfo& info,
                                    const Tokenizer& tokenizer, uint64_t bytes_to_come = 0);
absl::StatusOr<Request> MakeRequest(const v1::ScoreRequest& request, const Tokenizer& tokenizer);
absl::StatusOr<Request> MakeRequest(const v1::EmbedRequest& request, const Tokenizer& tokenizer);

// What `priority` of a request is to the engine: 0 the default, what is out of range stays so, for
// the engine to refuse.
int PriorityOf(uint32_t priority);

// The tokens of a prompt's next piece, for a tokenizer whose tokens are bytes.
std::vector<TokenId> EncodePiece(std::string_view bytes, const Tokenizer& tokenizer);

// Bytes of text in the request's prompt or chat.
int64_t InputBytes(const v1::GenerateRequest& request);

// And back.
void AddToken(const GeneratedToken& token, const Tokenizer& tokenizer,
              v1::GenerateResponse& response);
void FillTimings(const Timings& from, v1::Timings& to);
void FillFinish(const Completion& completion, v1::Finish& finish);
void FillScore(const Completion& completion, const v1::ScoreRequest& request,
               v1::ScoreResponse& response);
void FillEmbedding(const Completion& completion, v1::EmbedResponse& response);

}  // namespace evaserve

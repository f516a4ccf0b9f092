#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "evaserve/v1/inference.pb.h"

namespace evaserve {

// What --json prints: the fields of proto/evaserve/v1/inference.proto under their names. Bytes that
// are UTF-8 stand under the field's name; others in base64 under the name with "_base64" added.
nlohmann::ordered_json ToJson(const v1::GenerateResponse& response);
nlohmann::ordered_json ToJson(const v1::Model& model);
nlohmann::ordered_json ToJson(const v1::Usage& usage);
nlohmann::ordered_json ToJson(const v1::Timings& timings);

// Sets `name` or `name`_base64 in `json`.
void SetBytes(nlohmann::ordered_json& json, const std::string& name, const std::string& bytes);

// "length", "eos" or "stop".
std::string FinishReasonName(v1::FinishReason reason);

// Printable ASCII as it is, everything else as in a C string.
std::string Escape(std::string_view bytes);

// The object on a line of its own. What is not UTF-8 in it is replaced; SetBytes() keeps it.
std::string ToLine(const nlohmann::ordered_json& json);

}  // namespace evaserve

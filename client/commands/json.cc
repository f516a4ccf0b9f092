#include "client/commands/json.h"

#include "absl/strings/escaping.h"

namespace evaserve {
namespace {

using Json = nlohmann::ordered_json;

// The JSON library replaces what is not UTF-8; text that comes back unchanged was all valid.
bool IsUtf8(const std::string& bytes) {
  const std::string replaced = Json(bytes).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(replaced).get<std::string>() == bytes;
}

Json TokenJson(const v1::TokenLogprob& token) {
  Json json;
  json["token"] = token.token();
  if (token.control_token().empty()) {
    SetBytes(json, "bytes", token.bytes());
  } else {
    json["control_token"] = token.control_token();
  }
  json["logprob"] = token.logprob();
  return json;
}

Json GeneratedTokenJson(const v1::GeneratedToken& token) {
  Json json = TokenJson(token.chosen());
  for (const v1::TokenLogprob& top : token.top()) json["top"].push_back(TokenJson(top));
  return json;
}

Json FinishJson(const v1::Finish& finish) {
  Json json;
  json["reason"] = FinishReasonName(finish.reason());
  if (finish.reason() == v1::FINISH_REASON_STOP) SetBytes(json, "stop", finish.stop());
  json["seed"] = finish.seed();
  json["usage"] = ToJson(finish.usage());
  json["timings"] = ToJson(finish.timings());
  return json;
}

}  // namespace

nlohmann::ordered_json ToJson(const v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"new_tokens", usage.new_tokens()},
          {"new_bytes", usage.new_bytes()}};
}

nlohmann::ordered_json ToJson(const v1::Timings& timings) {
  return {{"queue_seconds", timings.queue_seconds()},
          {"first_token_seconds", timings.first_token_seconds()},
          {"total_seconds", timings.total_seconds()}};
}

nlohmann::ordered_json ToJson(const v1::GenerateResponse& response) {
  Json json;
  SetBytes(json, "text", response.text());
  for (const v1::GeneratedToken& token : response.tokens())
    json["tokens"].push_back(GeneratedTokenJson(token));
  if (response.has_finish()) json["finish"] = FinishJson(response.finish());
  return json;
}

nlohmann::ordered_json ToJson(const v1::Model& model) {
  Json json = {{"name", model.name()}, {"version", model.version()}, {"state", model.state()}};
  if (!model.reason().empty()) json["reason"] = model.reason();
  if (model.state() != "READY") return json;
  json["architecture"] = model.architecture();
  json["dtype"] = model.dtype();
  json["parameters"] = model.parameters();
  json["max_seq_len"] = model.max_seq_len();
  json["window"] = model.window();
  json["chunk"] = model.chunk();
  json["embedding_size"] = model.embedding_size();
  json["token"] = model.token();
  return json;
}

void SetBytes(nlohmann::ordered_json& json, const std::string& name, const std::string& bytes) {
  if (IsUtf8(bytes)) {
    json[name] = bytes;
  } else {
    json[name + "_base64"] = absl::Base64Escape(bytes);
  }
}

std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_EOS:
      return "eos";
    case v1::FINISH_REASON_STOP:
      return "stop";
    default:
      return "unspecified";
  }
}

std::string Escape(std::string_view bytes) {
  return absl::CHexEscape(absl::string_view(bytes.data(), bytes.size()));
}

std::string ToLine(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace evaserve

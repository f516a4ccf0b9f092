#include "server/repository/serving_settings.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/io/json_fields.h"
#include "server/engine/durations.h"

namespace evaserve {
namespace {

constexpr char kVersionPolicy[] = "version_policy";
constexpr int64_t kMaxTokens = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxSeconds = int64_t{365} * 24 * 3600;

// One key of serving.json.
struct Key {
  const char* name;
  void (*read)(const char* name, JsonFields& fields, ServingSettings& to);
};

// Each member is one of the member before, the first one of the engine's options.
template <auto... kMembers>
void ReadCount(const char* name, JsonFields& fields, ServingSettings& to) {
  int& count = (to.engine.*....*kMembers);
  count = static_cast<int>(fields.Integer(name, count, 1, int64_t{1} << 20));
}
template <auto... kMembers>
void ReadTokens(const char* name, JsonFields& fields, ServingSettings& to) {
  int64_t& tokens = (to.engine.*....*kMembers);
  tokens = fields.Integer(name, tokens, 0, kMaxTokens);
}
template <auto kMember>
void ReadSeconds(const char* name, JsonFields& fields, ServingSettings& to) {
  const double fallback = std::chrono::duration<double>(to.engine.*kMember).count();
  to.engine.*kMember =
      MillisecondsOf(fields.Number(name, fallback, 0, static_cast<double>(kMaxSeconds)));
}

void ReadDType(const char* name, JsonFields& fields, ServingSettings& to) {
  if (!fields.Has(name)) return;
  to.load.dtype = DTypeFromName(fields.String(name, ""));
  if (!to.load.dtype) fields.Fail(name, "\"float32\", \"bfloat16\", \"float16\"");
}

void ReadDevice(const char* name, JsonFields& fields, ServingSettings& to) {
  if (!fields.Has(name)) return;
  const absl::StatusOr<Device> device = ParseDevice(fields.String(name, ""));
  if (!device.ok()) return fields.Fail(name, "\"cpu\", \"cuda:N\", \"auto\"");
  to.load.device = *device;
}

// {"inputs": ["a", ...], "outputs": ["b", ...]}
void ReadRagged(const char* name, JsonFields& fields, ServingSettings& to) {
  const nlohmann::json* const ragged = fields.Object(name);
  if (ragged == nullptr) return;
  JsonFields lists(*ragged, name);
  RaggedTensors& tensors = to.load.packages.ragged;
  tensors.inputs = lists.Strings("inputs", {});
  tensors.outputs = lists.Strings("outputs", {});
  const size_t num_known = ragged->count("inputs") + ragged->count("outputs");
  if (!lists.status().ok() || tensors.inputs.empty() || ragged->size() != num_known) {
    fields.Fail(name, "{\"inputs\": [NAME, ...], \"outputs\": [NAME, ...]} with an input at least");
  }
}

int64_t ReadMegabytes(const char* name, JsonFields& fields, int64_t bytes) {
  return fields.Integer(name, bytes >> 20, 1, int64_t{1} << 24) << 20;
}

constexpr Key kKeys[] = {
    {"device", ReadDevice},
    {"dtype", ReadDType},
    {"threads",
     [](const char* name, JsonFields& fields, ServingSettings& to) {
       to.num_threads = static_cast<int>(fields.Integer(name, to.num_threads, 1, 1024));
     }},
    {"state_memory_mb",
     [](const char* name, JsonFields& fields, ServingSettings& to) {
       to.load.state_bytes = ReadMegabytes(name, fields, to.load.state_bytes);
     }},
    {"warmup_tokens",
     [](const char* name, JsonFields& fields, ServingSettings& to) {
       to.warmup_tokens = static_cast<int>(fields.Integer(name, to.warmup_tokens, 0, 1 << 20));
     }},
    {"max_batch_tokens", ReadCount<&EngineOptions::max_batch_tokens>},
    {"max_batch_size",
     [](const char* name, JsonFields& fields, ServingSettings& to) {
       int& rows = to.engine.max_batch_size;
       rows = static_cast<int>(fields.Integer(name, rows, 0, 1 << 20));
     }},
    {"preferred_batch_size",
     [](const char* name, JsonFields& fields, ServingSettings& to) {
       std::vector<int64_t>& sizes = to.engine.preferred_batch_sizes;
       sizes = fields.Integers(name, sizes, 1, 1 << 20);
       std::ranges::sort(sizes);
     }},
    {"ragged", ReadRagged},
    {"max_queue_delay_ms",
     [](const char* name, JsonFields& fields, ServingSettings& to) {
       const std::chrono::duration<double, std::milli> fallback = to.engine.max_queue_delay;
       to.engine.max_queue_delay = std::chrono::duration_cast<std::chrono::microseconds>(
           std::chrono::duration<double, std::milli>(
               fields.Number(name, fallback.count(), 0, kMaxSeconds * 1000.0)));
     }},
    {"max_running", ReadCount<&EngineOptions::max_running>},
    {"max_waiting", ReadCount<&EngineOptions::waiting, &WaitingLimits::max_waiting>},
    {"max_waiting_tokens", ReadTokens<&EngineOptions::waiting, &WaitingLimits::max_waiting_tokens>},
    {"max_waiting_mb",
     [](const char* name, JsonFields& fields, ServingSettings& to) {
       int64_t& bytes = to.engine.waiting.max_waiting_bytes;
       bytes = ReadMegabytes(name, fields, bytes);
     }},
    {"max_prompt_tokens", ReadTokens<&EngineOptions::max_prompt_tokens>},
    {"max_new_tokens", ReadTokens<&EngineOptions::max_new_tokens>},
    {"max_queue_seconds", ReadSeconds<&EngineOptions::max_queue_time>},
    {"max_request_seconds", ReadSeconds<&EngineOptions::max_request_time>},
    {"max_piece_wait_seconds", ReadSeconds<&EngineOptions::max_piece_wait>},
};

absl::Status CheckKeys(const nlohmann::json& json, const std::string& where) {
  const std::vector<std::string> known = ServingKeys();
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat(where, ": unknown key \"", key.substr(0, 64),
                                                   "\"; allowed: ", absl::StrJoin(known, ", ")));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServingSettings> ParseServingSettings(const nlohmann::json& json,
                                                     const std::string& where,
                                                     ServingSettings defaults) {
  if (absl::Status status = CheckKeys(json, where); !status.ok()) return status;
  JsonFields fields(json, where);
  for (const Key& key : kKeys) key.read(key.name, fields, defaults);
  if (!fields.status().ok()) return fields.status();
  return defaults;
}

absl::StatusOr<VersionPolicy> ParseVersionPolicy(const nlohmann::json& json,
                                                 const std::string& where) {
  VersionPolicy policy;
  const auto found = json.find(kVersionPolicy);
  if (found == json.end() || found->is_null()) return policy;
  const absl::Status refused = absl::InvalidArgumentError(
      absl::StrCat(where, ": \"", kVersionPolicy, "\" is ", found->dump().substr(0, 200),
                   "; allowed: {\"latest\": {\"num_versions\": N}}, {\"all\": {}} or "
                   "{\"specific\": {\"versions\": [N, ...]}}"));
  if (!found->is_object() || found->size() != 1 || !found->begin()->is_object()) return refused;
  JsonFields fields(*found->begin(), absl::StrCat(where, ": ", kVersionPolicy));
  const std::string kind = found->begin().key();
  if (kind == "latest") {
    policy.num_latest = static_cast<int>(fields.Integer("num_versions", 1, 1, 1 << 20));
  } else if (kind == "all") {
    policy.num_latest = 0;
  } else if (kind == "specific") {
    policy.specific = fields.Integers("versions", {}, 1, kMaxTokens);
    if (policy.specific.empty()) fields.Fail("versions", "at least one version");
  } else {
    return refused;
  }
  if (!fields.status().ok()) return fields.status();
  return policy;
}

std::vector<std::string> ServingKeys() {
  std::vector<std::string> names;
  for (const Key& key : kKeys) names.push_back(key.name);
  names.push_back(kVersionPolicy);
  return names;
}

}  // namespace evaserve

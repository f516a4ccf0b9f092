#include "models/evabyte/config.h"

#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/page_layout.h"
#include "models/io/generation_config.h"
#include "models/io/json_fields.h"

namespace evaserve {
namespace {

namespace fs = std::filesystem;

// Far above any model, and small enough that no product of three sizes overflows an int64_t.
constexpr int64_t kMaxSize = 1 << 20;
constexpr int64_t kMaxPositions = 1 << 24;
// Of the table of rotations, 1 GiB: it is in no checkpoint, so a small one could ask for any
// memory.
constexpr int64_t kMaxRotations = 1 << 28;
constexpr float kMaxFloat = std::numeric_limits<float>::max();

void ReadSizes(JsonFields& fields, EvaByteConfig& config) {
  config.vocab_size = fields.Integer("vocab_size", config.vocab_size, 1, kMaxSize);
  config.hidden_size = fields.Integer("hidden_size", {}, 1, kMaxSize);
  config.intermediate_size = fields.Integer("intermediate_size", {}, 1, kMaxSize);
  config.num_layers = fields.Integer("num_hidden_layers", {}, 1, 4096);
  config.num_heads = fields.Integer("num_attention_heads", {}, 1, 4096);
  config.num_pred_heads = fields.Integer("num_pred_heads", config.num_pred_heads, 1, 64);
  config.window = fields.Integer("window_size", config.window, 1, kMaxSize);
  config.chunk = fields.Integer("chunk_size", config.chunk, 1, kMaxSize);
  config.max_positions =
      fields.Integer("max_position_embeddings", config.max_positions, 1, kMaxPositions);
  if (config.hidden_size % config.num_heads != 0) {
    fields.Fail("hidden_size",
                absl::StrCat("a multiple of num_attention_heads, ", config.num_heads));
  } else if (const absl::Status heads =
                 Validate(PageLayout{DType::kFloat32, config.num_heads, config.head_dim()});
             !heads.ok()) {
    fields.Fail("hidden_size",
                absl::StrCat("a size that the kernels take (", std::string(heads.message()), ")"));
  } else if (int64_t{config.max_positions} * config.head_dim() > kMaxRotations) {
    fields.Fail("max_position_embeddings",
                absl::StrCat("at most ", kMaxRotations / config.head_dim(), ", since heads have ",
                             config.head_dim(), " numbers and the table of rotations at most ",
                             kMaxRotations));
  }
  if (config.window % config.chunk != 0) {
    fields.Fail("window_size", absl::StrCat("a multiple of chunk_size, ", config.chunk));
  }
}

void ReadNumerics(JsonFields& fields, EvaByteConfig& config) {
  config.rms_norm_eps = fields.Number("rms_norm_eps", config.rms_norm_eps, 0, 1);
  config.norm_unit_offset = fields.Boolean("norm_add_unit_offset", config.norm_unit_offset);
  config.rope_theta = fields.Number("rope_theta", config.rope_theta, 1, kMaxFloat);
  const std::string name = fields.String("torch_dtype", "float32");
  const std::optional<DType> dtype = DTypeFromName(name);
  if (!dtype) fields.Fail("torch_dtype", "\"float32\", \"bfloat16\", \"float16\"");
  config.dtype = dtype.value_or(DType::kFloat32);
}

absl::Status ReadRopeScaling(const nlohmann::json& json, const std::string& where,
                             EvaByteConfig& config) {
  const auto found = json.find("rope_scaling");
  if (found == json.end() || found->is_null()) return absl::OkStatus();
  if (!found->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": \"rope_scaling\" is ", found->dump(),
                     "; allowed: null or an object with \"type\" and \"factor\""));
  }
  JsonFields fields(*found, absl::StrCat(where, ": rope_scaling"));
  const std::string type = fields.String("type", "");
  if (type != "linear" && type != "dynamic") fields.Fail("type", "\"linear\", \"dynamic\"");
  config.rope_scaling = type == "linear" ? RopeScaling::kLinear : RopeScaling::kDynamic;
  config.rope_factor = fields.Number("factor", {}, 1, kMaxFloat);
  if (config.rope_factor <= 1) fields.Fail("factor", "a number above 1");
  return fields.status();
}

// Switches that would change the function, and have one value in every published model.
void RefuseOtherFunctions(JsonFields& fields) {
  if (fields.String("hidden_act", "silu") != "silu") fields.Fail("hidden_act", "\"silu\"");
  if (fields.String("attention_class", "eva") != "eva") fields.Fail("attention_class", "\"eva\"");
  if (fields.Boolean("attention_bias", false)) fields.Fail("attention_bias", "false");
  if (fields.Boolean("tie_word_embeddings", false)) fields.Fail("tie_word_embeddings", "false");
  if (fields.Has("num_chunks")) fields.Fail("num_chunks", "null, since chunk_size counts");
}

}  // namespace

absl::StatusOr<EvaByteConfig> ParseEvaByteConfig(const nlohmann::json& json,
                                                 const fs::path& directory) {
  const std::string where = (directory / "config.json").string();
  JsonFields fields(json, where);
  EvaByteConfig config;
  ReadSizes(fields, config);
  ReadNumerics(fields, config);
  RefuseOtherFunctions(fields);
  config.eos_tokens = ReadEosTokens(fields, config.eos_tokens, config.vocab_size);
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = ReadRopeScaling(json, where, config); !status.ok()) return status;
  return config;
}

}  // namespace evaserve

// config.json and serving.json from anywhere: read, or refused with a message.

#include <cstdlib>
#include <string_view>

#include "models/eva_lm/config.h"
#include "models/evabyte/config.h"
#include "models/io/json_file.h"
#include "models/package/joined_batch.h"
#include "server/repository/serving_settings.h"
#include "tests/fuzz/fuzz_target.h"

namespace evaserve {
namespace {

void Check(bool is_so) {
  if (!is_so) std::abort();
}

void CheckRefusal(const absl::Status& status) {
  Check(status.ok() || (absl::IsInvalidArgument(status) && !status.message().empty()));
}

void Read(std::string_view text) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text, "file");
  CheckRefusal(json.status());
  if (!json.ok()) return;
  const absl::StatusOr<EvaByteConfig> config = ParseEvaByteConfig(*json, "directory");
  CheckRefusal(config.status());
  if (config.ok()) {
    Check(config->window % config->chunk == 0 && config->hidden_size % config->num_heads == 0);
  }
  const absl::StatusOr<EvaLmConfig> words = ReadEvaLmConfig("file", *json, {});
  CheckRefusal(words.status());
  if (words.ok()) {
    Check(words->BandSize(static_cast<int>(words->cutoffs.size())) > 0 &&
          words->attention.window % words->attention.chunk == 0);
  }
  const absl::StatusOr<ServingSettings> settings = ParseServingSettings(*json, "file", {});
  CheckRefusal(settings.status());
  const absl::StatusOr<PackageConfig> package = ReadPackageConfig(*json, "file");
  CheckRefusal(package.status());
  if (package.ok()) {
    for (const TensorSpec& spec : package->inputs) Check(!spec.name.empty() && spec.shape[0] == -1);
    CheckRefusal(MakeJoinPlan(*package, {{package->inputs[0].name}, {}}).status());
  }
  CheckRefusal(ParseVersionPolicy(*json, "file").status());
}

}  // namespace
}  // namespace evaserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  evaserve::Read({reinterpret_cast<const char*>(data), size});
  return 0;
}

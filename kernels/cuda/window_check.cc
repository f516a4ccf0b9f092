#include "kernels/cuda/window_check.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/step_check.h"
#include "kernels/window_attend.h"

namespace evaserve {
namespace {

absl::Status Refuse(const std::string& field, int64_t value, const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; allowed: ", allowed));
}

absl::Status CheckOptions(const WindowOptions& options) {
  const int head_dim = options.shape.head_dim;
  if (absl::Status status = ValidateHeads(options.num_heads, head_dim); !status.ok()) return status;
  if (head_dim % 8 != 0) return Refuse("head_dim", head_dim, "multiples of 8 on a device");
  if (options.scale > 0.f) return absl::OkStatus();  // a bias is divided by it
  return absl::InvalidArgumentError(
      absl::StrCat("scale is ", options.scale, "; allowed: positive numbers"));
}

absl::Status CheckShape(const WindowOptions& options, const CausalEvaShape& shape) {
  if (absl::Status status = Validate(shape); !status.ok()) return status;
  if (shape.num_heads != options.num_heads) {
    return Refuse("shape.num_heads", shape.num_heads, absl::StrCat(options.num_heads));
  }
  if (shape.head_dim != options.shape.head_dim) {
    return Refuse("shape.head_dim", shape.head_dim, absl::StrCat(options.shape.head_dim));
  }
  return CheckOptions(options);
}

absl::Status CheckStep(const CausalEvaShape& shape, const CausalStep& step,
                       const std::string& name) {
  if (step.position < 0) return Refuse(name + ".position", step.position, "0 or more");
  if (step.row_begin < 0) return Refuse(name + ".row_begin", step.row_begin, "0 or more");
  const int left = shape.window - step.position % shape.window;
  if (step.num_tokens < 1 || step.num_tokens > left) {
    return Refuse(name + ".num_tokens", step.num_tokens,
                  absl::StrCat("1 to ", left, ", what is left of its window"));
  }
  const int64_t most = std::numeric_limits<int32_t>::max() - int64_t{shape.num_keys()};
  if (step.state_begin < 0 || step.state_begin > most) {
    return Refuse(name + ".state_begin", step.state_begin, absl::StrCat("0 to ", most));
  }
  if (step.landmark_begin < 0) {
    return Refuse(name + ".landmark_begin", step.landmark_begin, "0 or more");
  }
  const int64_t chunks = (int64_t{step.position} + step.num_tokens) / shape.chunk;
  if (step.max_chunks >= chunks) return absl::OkStatus();
  return Refuse(name + ".max_chunks", step.max_chunks, absl::StrCat(chunks, " or more"));
}

absl::Status CheckMap(const CudaMap& map, const std::string& field) {
  if (map.bias != nullptr && (map.norm_weight == nullptr) == (map.norm_bias == nullptr)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has no bias, or one part of a norm without the other"));
}

}  // namespace

absl::Status CheckWindows(const WindowOptions& options, std::span<const RegionItem> items) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  WindowAttendParams params;  // the rules of regions are the CPU's
  params.items = items;
  params.num_heads = options.num_heads;
  params.head_dim = options.shape.head_dim;
  params.stride = params.out_stride = int64_t{params.num_heads} * params.head_dim;
  return Validate(params);
}

absl::Status CheckCausal(const WindowOptions& options, const CausalEvaShape& shape,
                         std::span<const int> lengths) {
  constexpr int kMaxTokens = 1 << 24;
  if (absl::Status status = CheckShape(options, shape); !status.ok()) return status;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] >= 1 && lengths[i] <= kMaxTokens) continue;
    return Refuse(absl::StrCat("lengths[", i, "]"), lengths[i], absl::StrCat("1 to ", kMaxTokens));
  }
  return absl::OkStatus();
}

absl::Status CheckSteps(const WindowOptions& options, const CausalEvaShape& shape,
                        std::span<const CausalStep> steps) {
  if (absl::Status status = CheckShape(options, shape); !status.ok()) return status;
  for (size_t i = 0; i < steps.size(); ++i) {
    absl::Status status = CheckStep(shape, steps[i], absl::StrCat("steps[", i, "]"));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckLayer(const WindowOptions& options, const LandmarksLayer& layer) {
  const int64_t width = int64_t{options.num_heads} * options.shape.head_dim;
  const std::pair<const char*, const void*> rows[] = {
      {"q", layer.q}, {"k", layer.k}, {"v", layer.v}};
  for (const auto& [field, address] : rows) {
    absl::Status status = CheckRows(field, address, layer.stride, width);
    if (!status.ok()) return status;
  }
  for (const auto& [field, address] :
       {std::pair<const char*, const void*>{"k_bar", layer.k_bar}, {"beta", layer.beta}}) {
    if (absl::Status status = CheckAddress(field, address); !status.ok()) return status;
  }
  if (layer.map_k.weight == nullptr) return absl::InvalidArgumentError("map_k has no weight");
  if (absl::Status status = CheckMap(layer.map_k, "map_k"); !status.ok()) return status;
  return layer.map_q.weight == nullptr ? absl::OkStatus() : CheckMap(layer.map_q, "map_q");
}

absl::Status CheckLayer(const WindowOptions& options, const WindowLayer& layer) {
  const int64_t width = int64_t{options.num_heads} * options.shape.head_dim;
  const struct {
    const char* field;
    const void* address;
    int64_t stride;
  } rows[] = {{"q", layer.q, layer.q_stride},  {"k", layer.k, layer.kv_stride},
              {"v", layer.v, layer.kv_stride}, {"out", layer.out, layer.out_stride},
              {"k_bar", layer.k_bar, width},   {"beta", layer.beta, width}};
  for (const auto& [field, address, stride] : rows) {
    if (absl::Status status = CheckRows(field, address, stride, width); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace evaserve

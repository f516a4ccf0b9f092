#include "server/rpc/classify.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/classification.h"
#include "server/rpc/evaserve_requests.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/refuse.h"

namespace evaserve {
namespace {

constexpr char kImage[] = "image";
constexpr char kLogits[] = "logits";
constexpr int64_t kDefaultTopK = 5;

// The index of tensor `name` of this type and rank, or specs.size().
size_t Find(const std::vector<TensorSpec>& specs, const char* name, TensorType type, size_t rank) {
  const auto is_it = [&](const TensorSpec& spec) {
    return spec.name == name && spec.type == type && spec.shape.size() == rank;
  };
  return static_cast<size_t>(std::ranges::find_if(specs, is_it) - specs.begin());
}

absl::Status DoesNotClassify(const std::string& model) {
  return absl::UnimplementedError(absl::StrCat("model \"", model, "\" does not classify images"));
}

}  // namespace

absl::StatusOr<TensorCall::Work> PrepareClassify(const ReadyModel& model,
                                                 const v1::ClassifyRequest& request,
                                                 v1::ClassifyResponse& response) {
  if (model.tensors == nullptr) return DoesNotClassify(model.name);
  const TensorModelInfo& info = model.tensors->info();
  const size_t input = Find(info.inputs, kImage, TensorType::kBytes, /*rank=*/1);
  const size_t output = Find(info.outputs, kLogits, TensorType::kFp32, /*rank=*/2);
  if (input == info.inputs.size() || output == info.outputs.size()) {
    return DoesNotClassify(model.name);
  }
  if (request.image().empty()) {
    return Refuse("image: got 0 bytes, allowed is a JPEG or PNG file");
  }
  const auto raw = std::make_shared<std::string>();
  AppendRawBytes(request.image(), *raw);
  TensorCall::Work work{.engine = model.tensors};
  work.request.inputs.resize(info.inputs.size());
  work.request.inputs[input] = {.shape = {1}, .data = *raw};
  work.request.priority = PriorityOf(request.priority());
  const int64_t top_k = request.top_k() == 0 ? kDefaultTopK : request.top_k();
  work.answer = [raw, &spec = info.outputs[output], output, top_k, &response](
                    const Completion& completion, const TensorModel::Outputs& outputs) {
    FillClasses(outputs[output], spec, top_k, response);
    FillTimings(completion.timings, *response.mutable_timings());
  };
  return work;
}

void FillClasses(const OutputTensor& logits, const TensorSpec& spec, int64_t top_k,
                 v1::ClassifyResponse& response) {
  const std::vector<double> scores = ScoresOfItem(logits, spec.type, /*item=*/0);
  const std::vector<int64_t> order = Highest(scores, top_k);
  if (order.empty()) return;
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - scores[order.front()]);
  for (const int64_t index : order) {
    v1::Class& to = *response.add_classes();
    to.set_index(static_cast<uint32_t>(index));
    if (index < std::ssize(spec.labels)) to.set_label(spec.labels[index]);
    to.set_probability(std::exp(scores[index] - scores[order.front()]) / sum);
  }
}

}  // namespace evaserve

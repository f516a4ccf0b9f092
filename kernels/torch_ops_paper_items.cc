#include "kernels/torch_ops_paper_items.h"

#include <numeric>
#include <string>

namespace evaserve {

std::vector<int64_t> LengthsOf(const at::Tensor& q, const std::optional<at::Tensor>& lengths) {
  if (!lengths) {
    return std::vector<int64_t>(q.size(0), c10::multiply_integers(q.sizes().slice(2, q.dim() - 3)));
  }
  const at::Tensor given = lengths->to(at::kCPU).contiguous();
  const int64_t* data = given.const_data_ptr<int64_t>();
  std::vector<int64_t> all(data, data + given.numel());
  for (const int64_t length : all) {
    TORCH_CHECK(length > 0 && length <= q.size(2), "lengths has ", length, ", must be in [1, ",
                q.size(2), "]");
  }
  const int64_t sum = std::accumulate(all.begin(), all.end(), int64_t{0});
  TORCH_CHECK(sum == q.size(2), "the sum of lengths is ", sum,
              ", must be seq_len of q = ", q.size(2));
  return all;
}

PaperItems::PaperItems(const std::vector<int64_t>& lengths, RegionShape shape) {
  int64_t token = 0;
  for (const int64_t length : lengths) {
    auto found = regions_.find(length);
    if (found == regions_.end()) {
      if (!shape.is_2d) shape.width = static_cast<int>(length);
      absl::StatusOr<Regions> made = MakeRegions(shape);
      TORCH_CHECK(made.ok(), std::string(made.status().message()));
      found = regions_.emplace(length, *std::move(made)).first;
    }
    items_.push_back({&found->second, token, num_landmarks_});
    token += length;
    num_landmarks_ += found->second.num_chunks;
  }
}

}  // namespace evaserve

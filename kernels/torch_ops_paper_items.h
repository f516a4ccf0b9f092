#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "kernels/regions.h"

namespace evaserve {

// Tokens of each sequence, or map, in the order in which they lie, of arguments that were checked
// (torch_ops_paper_check.h). c10::Error if they do not make up q. Waits for lengths that lie on a
// device.
std::vector<int64_t> LengthsOf(const at::Tensor& q, const std::optional<at::Tensor>& lengths);

// The sequences or maps of a call, with the tables that those of one length share.
class PaperItems {
 public:
  PaperItems(const std::vector<int64_t>& lengths, RegionShape shape);
  PaperItems(const PaperItems&) = delete;

  std::span<const RegionItem> items() const { return items_; }
  int64_t num_landmarks() const { return num_landmarks_; }

 private:
  std::map<int64_t, Regions> regions_;
  std::vector<RegionItem> items_;
  int64_t num_landmarks_ = 0;
};

}  // namespace evaserve

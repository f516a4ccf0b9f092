#pragma once

#include <random>
#include <utility>
#include <vector>

#include "kernels/attend.h"
#include "kernels/cuda/attend_plan.h"
#include "kernels/cuda/page_image.h"
#include "kernels/dtype.h"
#include "kernels/page_layout.h"

namespace evaserve {

// A random batch for the attention kernels on the device's pages, and the same for
// AttendReference(). Pages are shuffled; what is not written is NaN.
class AttendCase {
 public:
  struct Sequence {
    int num_queries = 1;
    int num_window = 1;  // the queries' own slots included
    int num_summaries = 0;
    bool is_tree = false;
  };
  struct Options {
    DType type = DType::kBFloat16;
    int head_dim = 128;
    int num_heads = 1;
    std::vector<Sequence> sequences;
    float spread = 1.f;  // of queries, keys and values
    uint32_t seed = 1;
  };

  explicit AttendCase(const Options& options);

  // For kernels that take tiles of so many queries. Valid until the next call.
  CudaAttendArgs Args(int tile_rows);

  int num_tokens() const { return num_tokens_; }
  int width() const { return options_.num_heads * options_.head_dim; }
  const AttendPlan& plan() const { return plan_; }
  // For GpuStep. What they point to is the case's.
  std::vector<AttendSequence> Sequences() const { return Batch(/*is_reference=*/false); }
  // The bits of elements: a float32 is two numbers.
  const std::vector<uint16_t>& pool() const { return pool_; }
  int num_pages() const;
  const std::vector<uint16_t>& q() const { return q_; }
  const std::vector<uint16_t>& out() const { return out_; }
  // What a kernel elsewhere has made; then only Error::relative of Compare() means something.
  void SetOut(std::vector<uint16_t> out) { out_ = std::move(out); }

  // Of what the kernel left in `out` and `lse`, against the reference.
  struct Error {
    double relative = 0.;  // |out - reference| / |reference|, root mean squares; NaN if one is
    double lse = 0.;       // the largest
  };
  Error Compare() const;

 private:
  // Elements of the case's type.
  float Load(const void* array, int64_t index) const {
    return LoadElement(array, options_.type, index);
  }
  void StoreRandom(void* array, int64_t index);
  int64_t page_bytes() const {
    return CudaPageBytes(options_.num_heads, options_.head_dim, SizeOf(options_.type));
  }
  // Takes pages for so many slots and fills them.
  std::vector<int32_t> FillPages(int num_slots, std::vector<int32_t>& reference_pages);
  void FillSlot(int32_t page, int32_t reference_page, int slot);
  std::vector<uint8_t> RandomTree(int num_nodes);
  // Where a dimension of a slot lies in its image.
  int64_t ImageElement(int slot, int dim) const;
  std::vector<AttendSequence> Batch(bool is_reference) const;

  const Options options_;
  std::mt19937 random_;
  int num_tokens_ = 0;
  std::vector<std::vector<int32_t>> summary_pages_, window_pages_;
  std::vector<std::vector<int32_t>> reference_summary_pages_, reference_window_pages_;
  std::vector<std::vector<uint8_t>> trees_;
  std::vector<int32_t> free_pages_, free_reference_pages_;
  std::vector<uint16_t> pool_;
  std::vector<float> reference_pool_;
  std::vector<uint16_t> q_, out_;
  std::vector<float> lse_;
  AttendPlan plan_;
};

}  // namespace evaserve

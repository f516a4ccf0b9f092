#include "kernels/cuda/testing/attend_case.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

namespace evaserve {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int NumPages(int num_slots, int page_slots) { return (num_slots + page_slots - 1) / page_slots; }

std::vector<int32_t> Shuffled(int size, std::mt19937& random) {
  std::vector<int32_t> numbers(size);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::shuffle(numbers.begin(), numbers.end(), random);
  return numbers;
}

template <int kHeadDim>
int64_t ElementOf(DType type, int slot, int dim) {
  return type == DType::kFloat32 ? FloatPageImage<kHeadDim>::Offset(slot, dim) / 4
                                 : PageImage<kHeadDim>::Offset(slot, dim) / 2;
}

}  // namespace

AttendCase::AttendCase(const Options& options) : options_(options), random_(options.seed) {
  int num_pages = 0, num_reference_pages = 0;
  for (const Sequence& s : options.sequences) {
    num_tokens_ += s.num_queries;
    for (const int slots : {s.num_window, s.num_summaries}) {
      num_pages += NumPages(slots, kCudaPageSlots);
      num_reference_pages += NumPages(slots, kPageSlots);
    }
  }
  free_pages_ = Shuffled(num_pages, random_);
  free_reference_pages_ = Shuffled(num_reference_pages, random_);
  pool_.assign(num_pages * page_bytes() / 2, 0xffff);
  const PageLayout layout{DType::kFloat32, options.num_heads, options.head_dim};
  reference_pool_.assign(num_reference_pages * layout.page_bytes() / 4, kNan);

  for (const Sequence& s : options.sequences) {
    summary_pages_.push_back(FillPages(s.num_summaries, reference_summary_pages_.emplace_back()));
    window_pages_.push_back(FillPages(s.num_window, reference_window_pages_.emplace_back()));
    trees_.push_back(s.is_tree ? RandomTree(s.num_queries) : std::vector<uint8_t>());
  }
  const int64_t num_elements = int64_t{num_tokens_} * width();
  q_.resize(num_elements * SizeOf(options.type) / 2);
  for (int64_t i = 0; i < num_elements; ++i) StoreRandom(q_.data(), i);
}

void AttendCase::StoreRandom(void* array, int64_t index) {
  StoreElement(array, options_.type, index,
               std::normal_distribution<float>(0.f, options_.spread)(random_));
}

int64_t AttendCase::ImageElement(int slot, int dim) const {
  switch (options_.head_dim) {
    case 32:
      return ElementOf<32>(options_.type, slot, dim);
    case 64:
      return ElementOf<64>(options_.type, slot, dim);
    case 96:
      return ElementOf<96>(options_.type, slot, dim);
    case 128:
      return ElementOf<128>(options_.type, slot, dim);
  }
  std::abort();
}

void AttendCase::FillSlot(int32_t page, int32_t reference_page, int slot) {
  const PageLayout layout{DType::kFloat32, options_.num_heads, options_.head_dim};
  const int64_t image = CudaImageBytes(options_.head_dim, SizeOf(options_.type));
  const int in_reference = slot % kPageSlots;
  for (int h = 0; h < options_.num_heads; ++h) {
    char* const keys = reinterpret_cast<char*>(pool_.data()) + page * page_bytes() + h * 2 * image;
    char* const values = keys + image;
    float* const reference = reference_pool_.data() +
                             (reference_page * layout.page_bytes() + h * layout.head_bytes()) / 4;
    for (int d = 0; d < options_.head_dim; ++d) {
      const int64_t at = ImageElement(slot % kCudaPageSlots, d);
      StoreRandom(keys, at);
      StoreRandom(values, at);
      reference[layout.key_index(in_reference, d)] = Load(keys, at);
      reference[layout.key_bytes() / 4 + layout.value_index(in_reference, d)] = Load(values, at);
    }
  }
}

std::vector<int32_t> AttendCase::FillPages(int num_slots, std::vector<int32_t>& reference_pages) {
  std::vector<int32_t> pages;
  for (int slot = 0; slot < num_slots; ++slot) {
    if (slot % kCudaPageSlots == 0) {
      pages.push_back(free_pages_.back());
      free_pages_.pop_back();
    }
    if (slot % kPageSlots == 0) {
      reference_pages.push_back(free_reference_pages_.back());
      free_reference_pages_.pop_back();
    }
    FillSlot(pages.back(), reference_pages.back(), slot);
  }
  return pages;
}

std::vector<uint8_t> AttendCase::RandomTree(int num_nodes) {
  std::vector<uint8_t> mask(static_cast<size_t>(num_nodes) * num_nodes, 0);
  for (int i = 0; i < num_nodes; ++i) {
    if (i > 0) {
      const int parent = static_cast<int>(random_() % i);
      std::copy_n(&mask[parent * num_nodes], num_nodes, &mask[i * num_nodes]);
    }
    mask[i * num_nodes + i] = 1;
  }
  return mask;
}

std::vector<AttendSequence> AttendCase::Batch(bool is_reference) const {
  std::vector<AttendSequence> batch;
  int token = 0;
  for (size_t i = 0; i < options_.sequences.size(); ++i) {
    const Sequence& s = options_.sequences[i];
    AttendSequence& to = batch.emplace_back();
    to.slots.summary_pages = is_reference ? reference_summary_pages_[i] : summary_pages_[i];
    to.slots.num_summaries = s.num_summaries;
    to.slots.window_pages = is_reference ? reference_window_pages_[i] : window_pages_[i];
    to.slots.num_window = s.num_window;
    to.query_begin = token;
    to.num_queries = s.num_queries;
    to.tree_mask = s.is_tree ? trees_[i].data() : nullptr;
    token += s.num_queries;
  }
  return batch;
}

CudaAttendArgs AttendCase::Args(int tile_rows) {
  plan_ = PlanAttend(Batch(/*is_reference=*/false), tile_rows);
  out_.assign(q_.size(), 0xffff);
  lse_.assign(static_cast<size_t>(num_tokens_) * options_.num_heads, kNan);
  CudaAttendArgs args;
  args.sequences = plan_.sequences.data();
  args.tiles = plan_.tiles.data();
  args.pages = plan_.pages.data();
  args.tree_masks = plan_.tree_masks.data();
  args.num_tiles = static_cast<int>(plan_.tiles.size());
  args.num_heads = options_.num_heads;
  args.pool = reinterpret_cast<const char*>(pool_.data());
  args.page_bytes = page_bytes();
  args.q = q_.data();
  args.q_stride = width();
  args.out = out_.data();
  args.out_stride = width();
  args.lse = lse_.data();
  args.scale_log2 = 1.44269504f / std::sqrt(static_cast<float>(options_.head_dim));
  return args;
}

int AttendCase::num_pages() const { return static_cast<int>(std::ssize(pool_) * 2 / page_bytes()); }

AttendCase::Error AttendCase::Compare() const {
  std::vector<float> q(static_cast<size_t>(num_tokens_) * width()), out(q.size());
  std::vector<float> lse(static_cast<size_t>(num_tokens_) * options_.num_heads);
  for (size_t i = 0; i < q.size(); ++i) q[i] = Load(q_.data(), i);
  const std::vector<AttendSequence> batch = Batch(/*is_reference=*/true);
  AttendParams params;
  params.pages.layout = {DType::kFloat32, options_.num_heads, options_.head_dim};
  params.pages.data = reinterpret_cast<std::byte*>(const_cast<float*>(reference_pool_.data()));
  params.pages.num_pages =
      static_cast<int>(reference_pool_.size() * 4 / params.pages.layout.page_bytes());
  params.scale = 1.f / std::sqrt(static_cast<float>(options_.head_dim));
  params.q = q.data();
  params.q_stride = width();
  params.out = out.data();
  params.out_stride = width();
  params.lse = lse.data();
  params.sequences = batch;
  if (!AttendReference(params).ok()) return {kNan, kNan};

  double difference = 0., size = 0.;
  for (size_t i = 0; i < out.size(); ++i) {
    difference += std::pow(Load(out_.data(), i) - out[i], 2);
    size += std::pow(out[i], 2);
  }
  Error error{std::sqrt(difference / size), 0.};
  for (size_t i = 0; i < lse_.size(); ++i) {
    const double e = std::fabs(lse_[i] - lse[i]);
    if (std::isnan(e) || e > error.lse) error.lse = e;
  }
  return error;
}

}  // namespace evaserve

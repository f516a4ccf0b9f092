#include "kernels/testing/eva_sequence.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

namespace evaserve {
namespace {

void CheckOk(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

void MakeRoom(PagePool& pages, std::vector<int32_t>& list, int num_slots) {
  while (static_cast<int>(list.size()) * kPageSlots < num_slots) list.push_back(pages.Take());
}

// cos 1 and sin 0: the tokens are rotated already.
struct NoRotation {
  explicit NoRotation(const EvaShape& shape, int num_positions)
      : cos(size_t(num_positions) * shape.head_dim / 2, 1.f), sin(cos.size(), 0.f) {}
  std::vector<float> cos, sin;
};

}  // namespace

Tokens Tokens::Slice(const EvaShape& shape, int begin, int count) const {
  const auto part = [&](const std::vector<float>& rows) {
    const auto first = rows.begin() + int64_t{begin} * shape.width();
    return std::vector<float>(first, first + int64_t{count} * shape.width());
  };
  return {part(q), part(k), part(v)};
}

std::vector<float> RandomVector(size_t size, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.f, spread);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

Tokens RandomTokens(const EvaShape& shape, int count, uint32_t seed) {
  const size_t size = size_t(count) * shape.width();
  return {RandomVector(size, 1.f, seed), RandomVector(size, 1.f, seed + 1000),
          RandomVector(size, 1.f, seed + 2000)};
}

HeadVectors RandomHeadVectors(const EvaShape& shape, uint32_t seed) {
  return {RandomVector(shape.width(), 0.3f, seed), RandomVector(shape.width(), 0.3f, seed + 1)};
}

void PagePool::Free::operator()(void* p) const { std::free(p); }

PagePool::PagePool(const EvaShape& shape, int num_pages, uint32_t seed) : free_(num_pages) {
  store_.layout = {shape.dtype, shape.num_heads, shape.head_dim};
  store_.num_pages = num_pages;
  const int64_t bytes = (num_pages * store_.layout.page_bytes() + 63) / 64 * 64;
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, bytes)));
  std::memset(memory_.get(), 0xff, bytes);  // a NaN in both types
  store_.data = memory_.get();
  std::iota(free_.begin(), free_.end(), 0);
  std::shuffle(free_.begin(), free_.end(), std::mt19937(seed));
}

int32_t PagePool::Take() {
  if (free_.empty()) throw std::runtime_error("no pages left");
  const int32_t page = free_.back();
  free_.pop_back();
  return page;
}

EvaKernels EvaKernels::Reference(const EvaShape& shape, const HeadVectors& vectors) {
  return EvaKernels(shape, vectors, nullptr);
}

EvaKernels EvaKernels::Cpu(const EvaShape& shape, const HeadVectors& vectors, WorkerPool& pool) {
  return EvaKernels(shape, vectors, &pool);
}

EvaOutput EvaKernels::Step(PagePool& pages, std::span<EvaSequence* const> sequences,
                           std::span<const int> counts, Tokens tokens,
                           const uint8_t* tree_mask) const {
  const NoRotation rotation(shape_, tokens.count(shape_) + 1);
  std::vector<StoreSequence> stores;
  std::vector<AttendSequence> attends;
  int row = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    EvaSequence& sequence = *sequences[i];
    MakeRoom(pages, sequence.window_pages, sequence.num_window + counts[i]);
    stores.push_back(
        {row, counts[i], sequence.window_pages, sequence.num_window, /*position_begin=*/0});
    sequence.num_window += counts[i];
    attends.push_back({sequence.slots(), row, counts[i], tree_mask});
    row += counts[i];
  }

  StoreSlotsParams store;
  store.pages = pages.store();
  store.rope = {rotation.cos.data(), rotation.sin.data(), tokens.count(shape_) + 1};
  store.q = tokens.q.data();
  store.k = tokens.k.data();
  store.v = tokens.v.data();
  store.token_stride = shape_.width();
  store.sequences = stores;
  CheckOk(pool_ ? StoreSlotsCpu(store, *pool_) : StoreSlotsReference(store));

  EvaOutput output;
  output.out.resize(tokens.q.size());
  output.lse.resize(size_t(row) * shape_.num_heads);
  AttendParams attend;
  attend.pages = pages.store();
  attend.scale = shape_.scale;
  attend.q = tokens.q.data();
  attend.out = output.out.data();
  attend.q_stride = attend.out_stride = shape_.width();
  attend.lse = output.lse.data();
  attend.sequences = attends;
  CheckOk(pool_ ? AttendCpu(attend, *pool_) : AttendReference(attend));
  return output;
}

void EvaKernels::Fold(PagePool& pages, EvaSequence& sequence, int num_chunks) const {
  MakeRoom(pages, sequence.summary_pages, sequence.num_summaries + num_chunks);
  const SummarizeSequence fold = {sequence.window_pages, num_chunks, sequence.summary_pages,
                                  sequence.num_summaries};
  SummarizeParams params;
  params.pages = pages.store();
  params.chunk = shape_.chunk;
  params.scale = shape_.scale;
  params.mu = vectors_.mu.data();
  params.phi = vectors_.phi.data();
  params.sequences = {&fold, 1};
  CheckOk(pool_ ? SummarizeCpu(params, *pool_) : SummarizeReference(params));
  sequence.num_summaries += num_chunks;
  sequence.num_window = 0;
}

EvaOutput EvaKernels::Run(PagePool& pages, EvaSequence& sequence, const Tokens& tokens,
                          int cut) const {
  EvaOutput all;
  const int num_tokens = tokens.count(shape_);
  for (int begin = 0; begin < num_tokens;) {
    const int count = std::min({cut, num_tokens - begin, shape_.window - sequence.num_window});
    EvaSequence* const one = &sequence;
    const EvaOutput step = Step(pages, {&one, 1}, {&count, 1}, tokens.Slice(shape_, begin, count));
    all.out.insert(all.out.end(), step.out.begin(), step.out.end());
    all.lse.insert(all.lse.end(), step.lse.begin(), step.lse.end());
    if (sequence.num_window == shape_.window) Fold(pages, sequence, shape_.window / shape_.chunk);
    begin += count;
  }
  return all;
}

EvaOutput RunAlone(const EvaKernels& kernels, const EvaShape& shape, const Tokens& tokens, int cut,
                   uint32_t page_seed) {
  const int num_tokens = tokens.count(shape);
  const int slots = std::min(num_tokens, shape.window) + num_tokens / shape.chunk;
  PagePool pages(shape, slots / kPageSlots + 3, page_seed);
  EvaSequence sequence;
  return kernels.Run(pages, sequence, tokens, cut);
}

double MaxError(std::span<const float> a, std::span<const float> b) {
  double error = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(double{a[i]} - b[i]);
    if (!(difference <= error)) error = difference;
    if (std::isnan(error)) return error;
  }
  return error;
}

}  // namespace evaserve

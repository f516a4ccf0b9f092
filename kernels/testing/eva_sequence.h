#pragma once

#include <memory>
#include <random>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/attend.h"
#include "kernels/page_layout.h"
#include "kernels/store_slots.h"
#include "kernels/summarize.h"
#include "kernels/worker_pool.h"

namespace evaserve {

struct EvaShape {
  int num_heads = 1;
  int head_dim = 16;
  int window = 32;  // tokens
  int chunk = 4;    // tokens, divides window
  DType dtype = DType::kFloat32;
  float scale = 0.25f;

  int width() const { return num_heads * head_dim; }
};

// Rows of q, k and v, each [num_tokens, num_heads * head_dim], rotated already.
struct Tokens {
  std::vector<float> q, k, v;

  int count(const EvaShape& shape) const { return static_cast<int>(q.size()) / shape.width(); }
  // Tokens [begin, begin + count).
  Tokens Slice(const EvaShape& shape, int begin, int count) const;
};

std::vector<float> RandomVector(size_t size, float spread, uint32_t seed);
Tokens RandomTokens(const EvaShape& shape, int count, uint32_t seed);

// One learned vector per head each, [num_heads, head_dim].
struct HeadVectors {
  std::vector<float> mu, phi;
};
HeadVectors RandomHeadVectors(const EvaShape& shape, uint32_t seed);

// Pages full of NaN, handed out in an order that the seed shuffles.
class PagePool {
 public:
  PagePool(const EvaShape& shape, int num_pages, uint32_t seed);

  PageStore store() const { return store_; }
  int32_t Take();

 private:
  struct Free {
    void operator()(void* p) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  PageStore store_;
  std::vector<int32_t> free_;
};

// The state of one sequence.
struct EvaSequence {
  std::vector<int32_t> summary_pages, window_pages;
  int num_summaries = 0;
  int num_window = 0;

  SlotList slots() const { return {summary_pages, num_summaries, window_pages, num_window}; }
};

struct EvaOutput {
  std::vector<float> out;  // [num_tokens, num_heads * head_dim]
  std::vector<float> lse;  // [num_tokens, num_heads]
};

// The three kernels, either the references or the CPU's on some workers.
class EvaKernels {
 public:
  static EvaKernels Reference(const EvaShape& shape, const HeadVectors& vectors);
  static EvaKernels Cpu(const EvaShape& shape, const HeadVectors& vectors, WorkerPool& pool);

  // One flat step: sequence i takes the next counts[i] tokens, which must not cross its window's
  // end. tree_mask, if any, is that of the only sequence.
  EvaOutput Step(PagePool& pages, std::span<EvaSequence* const> sequences,
                 std::span<const int> counts, Tokens tokens,
                 const uint8_t* tree_mask = nullptr) const;

  // Folds the first num_chunks chunks of the window into summaries and empties it.
  void Fold(PagePool& pages, EvaSequence& sequence, int num_chunks) const;

  // All tokens in steps of `cut` tokens or fewer where a window ends; folds finished windows.
  EvaOutput Run(PagePool& pages, EvaSequence& sequence, const Tokens& tokens, int cut) const;

 private:
  EvaKernels(const EvaShape& shape, const HeadVectors& vectors, WorkerPool* pool)
      : shape_(shape), vectors_(vectors), pool_(pool) {}

  const EvaShape shape_;
  const HeadVectors vectors_;
  WorkerPool* const pool_;  // null for the references
};

// Run on a fresh state.
EvaOutput RunAlone(const EvaKernels& kernels, const EvaShape& shape, const Tokens& tokens, int cut,
                   uint32_t page_seed = 1);

// Largest |a - b|; NaN if there is one.
double MaxError(std::span<const float> a, std::span<const float> b);

}  // namespace evaserve

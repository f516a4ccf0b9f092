#include <algorithm>

#include "kernels/cpu/adaptive_map.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/landmarks.h"

namespace evaserve {
namespace {

// Chunks that share one pass over the weights of the maps.
constexpr int kChunksPerBlock = 64;

int NumBlocks(const RegionItem& item) {
  return (item.regions->num_chunks + kChunksPerBlock - 1) / kChunksPerBlock;
}

// Some chunks of one head of one item.
struct Block {
  const RegionItem* item = nullptr;
  int head = 0;
  int chunk_begin = 0;
  int num_chunks = 0;
};

// Walks the blocks in order: those of head 0 of the first item, of head 1, ...
class Cursor {
 public:
  Cursor(const LandmarksParams& params, int index) : p_(params), item_(params.items.data()) {
    while (index >= NumBlocks(*item_) * p_.num_heads) index -= NumBlocks(*item_++) * p_.num_heads;
    head_ = index / NumBlocks(*item_);
    block_ = index % NumBlocks(*item_);
  }

  Block block() const {
    const int begin = block_ * kChunksPerBlock;
    return {item_, head_, begin, std::min(kChunksPerBlock, item_->regions->num_chunks - begin)};
  }

  void Next() {
    if (++block_ < NumBlocks(*item_)) return;
    block_ = 0;
    if (++head_ < p_.num_heads) return;
    head_ = 0;
    ++item_;
    while (item_ != p_.items.data() + p_.items.size() && NumBlocks(*item_) == 0) ++item_;
  }

 private:
  const LandmarksParams& p_;
  const RegionItem* item_;
  int head_ = 0;
  int block_ = 0;
};

// What one worker needs for a block.
struct Scratch {
  Scratch(WorkerPool& pool, int worker, const LandmarksParams& p, const Regions& regions) {
    const int64_t rows = int64_t{kChunksPerBlock} * p.head_dim;
    const int64_t members = regions.chunk_members;
    const int64_t weights_size = (members + 63) / 64 * 64;
    means = static_cast<float*>(
        pool.Scratch(worker, (2 * rows + weights_size + members) * sizeof(float)));
    mu = means + rows;
    weights = mu + rows;
    tokens = reinterpret_cast<int32_t*>(weights + weights_size);
  }

  float* means;     // [kChunksPerBlock, head_dim]
  float* mu;        // the same
  float* weights;   // [chunk_members], whole vectors
  int32_t* tokens;  // [chunk_members]
};

class BlockRunner {
 public:
  BlockRunner(const LandmarksParams& params, const Block& block, const Scratch& scratch)
      : p_(params), block_(block), s_(scratch) {
    const int64_t row = block.item->landmark_begin * p_.num_heads +
                        int64_t{block.head} * block.item->regions->num_chunks + block.chunk_begin;
    k_bar_ = p_.k_bar + row * p_.head_dim;
    beta_ = p_.beta + row * p_.head_dim;
  }

  void Run() {
    Map(p_.map_k, p_.k, k_bar_);
    const int size = block_.num_chunks * p_.head_dim;
    if (p_.map_q.weight == nullptr) {
      std::fill_n(s_.mu, size, 0.f);
    } else {
      Map(p_.map_q, p_.q, s_.mu);
      MixMu(p_.mu_scale, k_bar_, size, s_.mu);
    }
    for (int c = 0; c < block_.num_chunks; ++c) {
      kernels_.landmark_value(Chunk(c), s_.mu + c * p_.head_dim, s_.weights,
                              beta_ + c * p_.head_dim);
    }
  }

 private:
  const float* Rows(const float* x) const {
    return x + block_.item->token_begin * p_.stride + int64_t{block_.head} * p_.head_dim;
  }

  // Chunk c of the block, without the places that are outside of the tokens.
  LandmarkChunk Chunk(int c) const {
    LandmarkChunk chunk;
    chunk.k = Rows(p_.k);
    chunk.v = Rows(p_.v);
    chunk.stride = p_.stride;
    chunk.tokens = s_.tokens;
    chunk.head_dim = p_.head_dim;
    chunk.scale = p_.scale;
    for (const int32_t token : block_.item->regions->members_of(block_.chunk_begin + c)) {
      if (token >= 0) s_.tokens[chunk.num_tokens++] = token;
    }
    return chunk;
  }

  // y = map(means of the chunks' rows of x).
  void Map(const AdaptiveMap& map, const float* x, float* y) {
    const float factor = 1.f / static_cast<float>(block_.item->regions->chunk_members);
    for (int c = 0; c < block_.num_chunks; ++c) {
      kernels_.landmark_sum(Chunk(c), Rows(x), factor, s_.means + c * p_.head_dim);
    }
    ApplyMap(map, s_.means, block_.num_chunks, p_.head_dim, y);
  }

  const LandmarksParams& p_;
  const Block& block_;
  const Scratch& s_;
  const CpuKernels& kernels_ = GetCpuKernels();
  float* k_bar_;
  float* beta_;
};

}  // namespace

absl::Status LandmarksCpu(const LandmarksParams& params, WorkerPool& pool) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  int num_blocks = 0;
  int64_t work = 0;
  for (const RegionItem& item : params.items) {
    num_blocks += NumBlocks(item) * params.num_heads;
    const int64_t rows = item.regions->chunk_members * 4 + params.head_dim * 2;
    work += rows * item.regions->num_chunks * params.num_heads * params.head_dim;
  }
  if (num_blocks == 0) return absl::OkStatus();

  ParallelFor(pool, num_blocks, work / num_blocks, [&](int begin, int end, int worker) {
    Cursor cursor(params, begin);
    for (int i = begin; i < end; ++i, cursor.Next()) {
      const Block block = cursor.block();
      const Scratch scratch(pool, worker, params, *block.item->regions);
      BlockRunner(params, block, scratch).Run();
    }
  });
  return absl::OkStatus();
}

}  // namespace evaserve

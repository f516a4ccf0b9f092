#include <algorithm>
#include <numeric>

#include "kernels/causal_eva.h"
#include "kernels/cpu/adaptive_map.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace evaserve {
namespace {

// Consecutive tokens of one window.
struct Segment {
  int first = 0;     // token among the new ones
  int position = 0;  // of the first token in the sequence
  int place = 0;     // of the first token in its window
  int count = 0;
};

// What one worker needs for one head of one sequence.
struct Scratch {
  float* means = nullptr;      // [chunks of a window, head_dim]
  float* mu = nullptr;         // the same
  float* weights = nullptr;    // [chunk], whole vectors
  int32_t* iota = nullptr;     // [chunk]: 0, 1, 2, ...
  int32_t* queries = nullptr;  // [window]
  int32_t* keys = nullptr;     // [num_keys]
  char* attend = nullptr;
};

// Lays the parts out from `base` on and returns the end; a null base measures.
size_t LayOut(const CausalEvaShape& shape, size_t attend_bytes, char* base, Scratch& s) {
  size_t used = 0;
  const auto take = [&](int64_t bytes) {
    char* begin = base + used;
    used += (bytes + 63) / 64 * 64;
    return begin;
  };
  const int64_t rows = int64_t{shape.window / shape.chunk} * shape.head_dim;
  s.means = reinterpret_cast<float*>(take(rows * 4));
  s.mu = reinterpret_cast<float*>(take(rows * 4));
  s.weights = reinterpret_cast<float*>(take((shape.chunk + 15) / 16 * 64));
  s.iota = reinterpret_cast<int32_t*>(take(int64_t{shape.chunk} * 4));
  s.queries = reinterpret_cast<int32_t*>(take(int64_t{shape.window} * 4));
  s.keys = reinterpret_cast<int32_t*>(take(int64_t{shape.num_keys()} * 4));
  s.attend = take(static_cast<int64_t>(attend_bytes));
  return used;
}

// One head of one sequence.
class HeadRunner {
 public:
  HeadRunner(const CausalEvaParams& params, const CausalEvaSequence& sequence, int head)
      : p_(params),
        shape_(params.shape),
        sequence_(sequence),
        head_(head),
        keys_(sequence.state.keys + StateRow(shape_.num_keys())),
        values_(sequence.state.values + StateRow(shape_.num_keys())),
        open_q_(sequence.state.open_q + StateRow(shape_.chunk)),
        k_bar_(sequence.state.k_bar + StateRow(sequence.state.max_chunks)),
        beta_(sequence.state.beta + StateRow(sequence.state.max_chunks)) {}

  void Run(WorkerPool& pool, int worker) {
    WindowAttend largest = MakeWindow({});
    largest.num_landmarks = (sequence_.position + sequence_.num_tokens) / shape_.chunk;
    const size_t attend_bytes = kernels_.window_attend_scratch_bytes(largest);
    const size_t bytes = LayOut(shape_, attend_bytes, nullptr, s_);
    LayOut(shape_, attend_bytes, static_cast<char*>(pool.Scratch(worker, bytes)), s_);
    std::iota(s_.iota, s_.iota + shape_.chunk, 0);

    Segment segment;
    for (; segment.first < sequence_.num_tokens; segment.first += segment.count) {
      segment.position = sequence_.position + segment.first;
      segment.place = segment.position % shape_.window;
      segment.count = std::min(sequence_.num_tokens - segment.first, shape_.window - segment.place);
      StoreKeys(segment);
      CloseChunks(segment);
      Attend(segment);
    }
  }

 private:
  int64_t StateRow(int rows) const { return int64_t{head_} * rows * shape_.head_dim; }
  int64_t size(int rows) const { return int64_t{rows} * shape_.head_dim; }
  // This head of a new token's row.
  const float* Row(const float* x, int token) const {
    return x + (int64_t{sequence_.token_begin} + token) * p_.stride +
           int64_t{head_} * shape_.head_dim;
  }

  void StoreKeys(const Segment& segment) {
    const int extension = shape_.extension();
    for (auto [from, to] : {std::pair{p_.k, keys_}, {p_.v, values_}}) {
      // A new window: of the old one remains what the new one sees.
      if (segment.place == 0 && segment.position > 0) {
        std::copy_n(to + size(shape_.window), size(extension), to);
      }
      for (int i = 0; i < segment.count; ++i) {
        std::copy_n(Row(from, segment.first + i), shape_.head_dim,
                    to + size(extension + segment.place + i));
      }
    }
  }

  // The chunk at a place of the window, whose queries are in open_q.
  LandmarkChunk MakeChunk(int place) const {
    LandmarkChunk chunk;
    chunk.k = keys_ + size(shape_.extension() + place);
    chunk.v = values_ + size(shape_.extension() + place);
    chunk.stride = shape_.head_dim;
    chunk.tokens = s_.iota;
    chunk.num_tokens = shape_.chunk;
    chunk.head_dim = shape_.head_dim;
    chunk.scale = p_.scale;
    return chunk;
  }

  // Makes the landmarks of the chunks that the segment completes.
  void CloseChunks(const Segment& segment) {
    const int first = segment.position / shape_.chunk;
    const int count = (segment.position + segment.count) / shape_.chunk - first;
    const float factor = 1.f / static_cast<float>(shape_.chunk);
    const int place = first * shape_.chunk % shape_.window;  // of the first of them
    int closed = 0;
    for (int i = 0; i < segment.count; ++i) {
      const int in_chunk = (segment.position + i) % shape_.chunk;
      std::copy_n(Row(p_.q, segment.first + i), shape_.head_dim, open_q_ + size(in_chunk));
      if (in_chunk + 1 < shape_.chunk) continue;
      kernels_.landmark_sum(MakeChunk(0), open_q_, factor, s_.means + size(closed++));
    }
    if (count == 0) return;
    if (p_.map_q.weight != nullptr) ApplyMap(p_.map_q, s_.means, count, shape_.head_dim, s_.mu);

    for (int c = 0; c < count; ++c) {
      const LandmarkChunk chunk = MakeChunk(place + c * shape_.chunk);
      kernels_.landmark_sum(chunk, chunk.k, factor, s_.means + size(c));
    }
    float* k_bar = k_bar_ + size(first);
    ApplyMap(p_.map_k, s_.means, count, shape_.head_dim, k_bar);
    if (p_.map_q.weight != nullptr) {
      MixMu(p_.mu_scale, k_bar, static_cast<int>(size(count)), s_.mu);
    } else {
      std::fill_n(s_.mu, size(count), 0.f);
    }
    for (int c = 0; c < count; ++c) {
      kernels_.landmark_value(MakeChunk(place + c * shape_.chunk), s_.mu + size(c), s_.weights,
                              beta_ + size(first + c));
    }
  }

  WindowAttend MakeWindow(const Segment& segment) const {
    const int64_t token = int64_t{sequence_.token_begin} + segment.first;
    WindowAttend window;
    window.q = Row(p_.q, segment.first);
    window.q_stride = p_.stride;
    window.k = keys_;
    window.v = values_;
    window.kv_stride = shape_.head_dim;
    window.queries = s_.queries;
    window.keys = s_.keys;
    window.num_windows = 1;
    window.num_queries = shape_.window;
    window.num_keys = shape_.num_keys();
    window.k_bar = k_bar_;
    window.beta = beta_;
    window.num_landmarks = (segment.position + segment.count) / shape_.chunk;
    window.chunk = shape_.chunk;
    window.first_position = segment.position - segment.place;
    window.bias = p_.bias;
    window.scale = p_.scale;
    window.head_dim = shape_.head_dim;
    window.is_bfloat16 = p_.dtype == DType::kBFloat16;
    window.out = p_.out + token * p_.out_stride + int64_t{head_} * shape_.head_dim;
    window.out_stride = p_.out_stride;
    window.lse = p_.lse == nullptr ? nullptr : p_.lse + token * shape_.num_heads + head_;
    window.lse_stride = shape_.num_heads;
    return window;
  }

  void Attend(const Segment& segment) {
    for (int i = 0; i < shape_.window; ++i) {
      const int token = i - segment.place;
      s_.queries[i] = token >= 0 && token < segment.count ? token : -1;
    }
    // Always as many columns, so that a token's sums do not depend on the cut.
    const int first = segment.position - segment.place - shape_.extension();
    const int end = shape_.extension() + segment.place + segment.count;
    for (int j = 0; j < shape_.num_keys(); ++j) s_.keys[j] = first + j >= 0 && j < end ? j : -1;
    kernels_.window_attend(MakeWindow(segment), s_.attend);
  }

  const CausalEvaParams& p_;
  const CausalEvaShape& shape_;
  const CausalEvaSequence& sequence_;
  const int head_;
  float* const keys_;
  float* const values_;
  float* const open_q_;
  float* const k_bar_;
  float* const beta_;
  const CpuKernels& kernels_ = GetCpuKernels();
  Scratch s_;
};

}  // namespace

absl::Status CausalEvaCpu(const CausalEvaParams& params, WorkerPool& pool) {
  if (absl::Status status = Validate(params); !status.ok()) return status;
  const CausalEvaShape& shape = params.shape;
  int64_t work = 0;
  for (const CausalEvaSequence& sequence : params.sequences) {
    const int64_t columns =
        shape.num_keys() + (sequence.position + sequence.num_tokens) / shape.chunk;
    // Its columns are packed once more for each call.
    work += (int64_t{sequence.num_tokens} + 2) * columns * shape.head_dim * 2;
  }
  const int num_pieces = static_cast<int>(params.sequences.size()) * shape.num_heads;
  if (num_pieces == 0) return absl::OkStatus();
  ParallelFor(pool, num_pieces, work / static_cast<int64_t>(params.sequences.size()),
              [&](int begin, int end, int worker) {
                for (int i = begin; i < end; ++i) {
                  const CausalEvaSequence& sequence = params.sequences[i / shape.num_heads];
                  HeadRunner(params, sequence, i % shape.num_heads).Run(pool, worker);
                }
              });
  return absl::OkStatus();
}

}  // namespace evaserve

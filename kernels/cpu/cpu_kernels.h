#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace evaserve {

// The inner loops of the CPU kernels, compiled once per instruction set from the same sources
// (cpu/isa/). They check nothing, allocate nothing and know nothing of threads.
//
// These structs hold plain values only: a file compiled for one instruction set must not
// instantiate inline functions that the linker might then choose for a machine without it.

// Columns of a packed block: slots of a page, output features of a weight block.
inline constexpr int kTileColumns = 64;
// Largest head_dim.
inline constexpr int kMaxTileHeadDim = 512;

// The queries of one head and some consecutive rows of one sequence, see attend.h.
struct AttendRows {
  const float* q = nullptr;  // first row
  int64_t q_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  float* lse = nullptr;  // may be null
  int64_t lse_stride = 0;
  int num_rows = 0;
  float scale = 0.f;
  bool is_bfloat16 = false;
  int head_dim = 0;
  int padded_head_dim = 0;
  // The keys of this head in page 0, and what lies between two pages, between two heads, and from
  // keys to values.
  const std::byte* keys = nullptr;
  int64_t page_bytes = 0;
  int64_t head_bytes = 0;
  int64_t key_bytes = 0;
  const int32_t* summary_pages = nullptr;
  int num_summaries = 0;
  const int32_t* window_pages = nullptr;
  // Window slots that the first row sees under the causal mask; each further row sees one more.
  int num_visible = 0;
  // With a tree mask: all rows see the slots before own_begin, and of the num_own after it those
  // that their row of the mask [num_rows, num_own] shows. Then num_visible is not read.
  const uint8_t* tree_mask = nullptr;
  int own_begin = 0;
  int num_own = 0;
};

// `num_rows` rows of a linear layer and output features [out_begin, out_end) of one weight block.
struct LinearTile {
  const void* x = nullptr;       // float32, or pairs of bfloat16: [num_rows, num_units]
  int64_t x_stride = 0;          // units of 4 bytes
  const void* weight = nullptr;  // the block, [num_units, kTileColumns] units
  float* y = nullptr;            // where output feature out_begin of the first row goes
  int64_t y_stride = 0;
  int num_rows = 0;
  int num_units = 0;
  int out_begin = 0;
  int out_end = 0;
  bool is_bfloat16 = false;
  bool accumulate = false;
  const float* bias = nullptr;  // of out_begin; may be null
};

// One head of some consecutive tokens of one page, see store_slots.h.
struct StoreRows {
  float* q = nullptr;  // rotated in place
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t stride = 0;                 // elements between two tokens, of q, k and v
  const float* const* cos = nullptr;  // for each token its row of the rope table
  const float* const* sin = nullptr;
  int num_tokens = 0;
  int slot_begin = 0;  // in the page
  std::byte* keys = nullptr;
  std::byte* values = nullptr;
  int head_dim = 0;
  int padded_head_dim = 0;
  bool is_bfloat16 = false;
};

// One head of the chunks of one sequence, see summarize.h.
struct SummarizeChunks {
  std::byte* keys = nullptr;  // of this head in page 0
  int64_t page_bytes = 0;
  int64_t key_bytes = 0;
  const int32_t* window_pages = nullptr;
  const int32_t* summary_pages = nullptr;
  int num_chunks = 0;
  int chunk = 0;
  int summary_begin = 0;
  float scale = 0.f;
  const float* mu = nullptr;
  const float* phi = nullptr;
  int head_dim = 0;
  int padded_head_dim = 0;
  bool is_bfloat16 = false;
};

// One head of the tokens of one chunk, see landmarks.h.
struct LandmarkChunk {
  const float* k = nullptr;  // of token 0
  const float* v = nullptr;
  int64_t stride = 0;               // elements between two tokens
  const int32_t* tokens = nullptr;  // [num_tokens]
  int num_tokens = 0;
  int head_dim = 0;
  float scale = 0.f;
};

// One head of some consecutive windows of one item, see window_attend.h.
struct WindowAttend {
  const float* q = nullptr;  // of token 0
  int64_t q_stride = 0;      // elements between two tokens
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t kv_stride = 0;
  const int32_t* queries = nullptr;  // [num_windows, num_queries]
  const int32_t* keys = nullptr;     // [num_windows, num_keys]
  int num_windows = 0;
  int num_queries = 0;
  int num_keys = 0;
  const float* k_bar = nullptr;  // [num_landmarks, head_dim]
  const float* beta = nullptr;   // the same
  int num_landmarks = 0;
  // If positive, a query sees only what is behind it, see causal_eva.h: of the keys, which end with
  // those of the window, the ones up to its own place; and the landmarks of the chunks before its
  // own. The one window's first place has the position first_position.
  int chunk = 0;
  int first_position = 0;
  const float* bias = nullptr;  // [num_queries, num_keys]; may be null
  float scale = 0.f;
  int head_dim = 0;
  bool is_bfloat16 = false;
  float* out = nullptr;
  int64_t out_stride = 0;
  float* lse = nullptr;  // may be null
  int64_t lse_stride = 0;
};

// One row of a map, see depthwise_conv.h.
struct DepthwiseRow {
  const float* above = nullptr;  // the row before, null at the edge; all [width, channels]
  const float* row = nullptr;
  const float* below = nullptr;   // the row after, null at the edge
  const float* weight = nullptr;  // [3, 3, channels]
  const float* bias = nullptr;    // [channels]
  float* y = nullptr;
  int width = 0;
  int channels = 0;
};

struct CpuKernels {
  const char* name = nullptr;
  // Rows that share one pass over the slots, for the caller to split work by.
  int attend_rows = 0;
  size_t (*attend_scratch_bytes)(const AttendRows& args);
  void (*attend)(const AttendRows& args, void* scratch);
  void (*linear)(const LinearTile& args);
  void (*to_bfloat16)(const float* x, int size, void* pairs);  // an odd size is padded with zero
  void (*store)(const StoreRows& args);
  size_t (*summarize_scratch_bytes)(const SummarizeChunks& args);
  void (*summarize)(const SummarizeChunks& args, void* scratch);
  // sum = factor * the sum of the chunk's rows of `rows`, which lie as k and v.
  void (*landmark_sum)(const LandmarkChunk& args, const float* rows, float factor, float* sum);
  // beta of landmarks.h; weights is scratch for num_tokens floats, rounded up to 16.
  void (*landmark_value)(const LandmarkChunk& args, const float* mu, float* weights, float* beta);
  size_t (*window_attend_scratch_bytes)(const WindowAttend& args);
  void (*window_attend)(const WindowAttend& args, void* scratch);
  void (*depthwise_row)(const DepthwiseRow& args);
  void (*rms_norm)(const float* x, const float* weight, float* y, int size, float eps);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* y, int size,
                     float eps);
  void (*swiglu)(const float* gate, const float* up, float* y, int size);
  void (*gelu)(const float* x, float* y, int size);
  void (*geglu)(const float* gate, const float* up, float* y, int size);
  void (*relu)(const float* x, float* y, int size);
};

// The fastest of baseline, avx2 and avx512bf16 that this machine runs, chosen at the first call.
// The environment variable EVASERVE_CPU_ISA names another one, for tests and benchmarks; a name
// that is unknown, or that this machine cannot run, is ignored.
const CpuKernels& GetCpuKernels();

// Null if the name is unknown or the machine cannot run it.
const CpuKernels* FindCpuKernels(std::string_view name);

// Makes GetCpuKernels return the named ones. For tests: not thread-safe. False if there are none.
bool ForceCpuKernels(std::string_view name);

}  // namespace evaserve

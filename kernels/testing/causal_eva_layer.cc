#include "kernels/testing/causal_eva_layer.h"

#include <gtest/gtest.h>

#include <cmath>

namespace evaserve {

CausalEvaState CausalEvaMemory::state() {
  return {keys.data(), values.data(), open_q.data(), k_bar.data(), beta.data(), max_chunks};
}

CausalEvaLayer::CausalEvaLayer(const CausalEvaOptions& options, uint32_t seed)
    : CausalEvaLayer(options, RandomMap(options.shape.head_dim, options.has_norm, seed),
                     RandomMap(options.shape.head_dim, options.has_norm, seed + 10)) {}

CausalEvaLayer::CausalEvaLayer(const CausalEvaOptions& options, const MapWeights& map_q,
                               const MapWeights& map_k)
    : options_(options),
      map_q_(map_q),
      map_k_(map_k),
      weight_q_(PackMap(map_q)),
      weight_k_(PackMap(map_k)) {}

CausalEvaParams CausalEvaLayer::Params() const {
  CausalEvaParams params;
  params.shape = options_.shape;
  params.scale = 1.f / std::sqrt(float(options_.shape.head_dim));
  params.dtype = options_.dtype;
  params.map_q = ViewMap(map_q_, weight_q_);
  params.map_k = ViewMap(map_k_, weight_k_);
  params.bias = bias_.empty() ? nullptr : bias_.data();
  return params;
}

CausalEvaMemory CausalEvaLayer::MakeState(int max_tokens) const {
  const CausalEvaShape& shape = options_.shape;
  CausalEvaMemory memory;
  memory.max_chunks = max_tokens / shape.chunk;
  memory.keys.assign(size_t(shape.num_keys()) * width(), NAN);
  memory.values = memory.keys;
  memory.open_q.assign(size_t(shape.chunk) * width(), NAN);
  memory.k_bar.assign(size_t(memory.max_chunks) * width(), NAN);
  memory.beta = memory.k_bar;
  return memory;
}

CausalEvaOutput CausalEvaLayer::Step(std::span<CausalEvaMemory> states, std::span<const int> counts,
                                     const std::vector<float>& qkv, WorkerPool& pool) const {
  const std::vector<float> spread = WithGaps(qkv, 3 * width());
  std::vector<CausalEvaSequence> sequences;
  int tokens = 0;
  for (size_t i = 0; i < states.size(); ++i) {
    sequences.push_back({states[i].state(), states[i].position, tokens, counts[i]});
    tokens += counts[i];
    states[i].position += counts[i];
  }
  std::vector<float> out(size_t(tokens) * (width() + kRowGap), NAN);
  CausalEvaOutput output;
  output.lse.assign(size_t(tokens) * options_.shape.num_heads, NAN);
  CausalEvaParams params = Params();
  params.sequences = sequences;
  params.q = spread.data();
  params.k = params.q + width();
  params.v = params.k + width();
  params.stride = 3 * width() + kRowGap;
  params.out = out.data();
  params.out_stride = width() + kRowGap;
  params.lse = output.lse.data();
  const absl::Status status = CausalEvaCpu(params, pool);
  EXPECT_TRUE(status.ok()) << status;
  output.out = WithoutGaps(out, width());
  return output;
}

CausalEvaOutput CausalEvaLayer::Run(const std::vector<float>& qkv, const std::vector<int>& cuts,
                                    WorkerPool& pool) const {
  CausalEvaMemory memory = MakeState(static_cast<int>(qkv.size()) / (3 * width()));
  CausalEvaOutput whole;
  auto begin = qkv.begin();
  for (const int count : cuts) {
    const auto end = begin + int64_t{count} * 3 * width();
    const CausalEvaOutput part = Step({&memory, 1}, {&count, 1}, {begin, end}, pool);
    whole.out.insert(whole.out.end(), part.out.begin(), part.out.end());
    whole.lse.insert(whole.lse.end(), part.lse.begin(), part.lse.end());
    begin = end;
  }
  EXPECT_TRUE(begin == qkv.end()) << "the cuts do not make up the sequence";
  whole.k_bar = memory.k_bar;
  whole.beta = memory.beta;
  return whole;
}

CausalEvaOutput CausalEvaLayer::RunReference(const std::vector<float>& qkv) const {
  const int tokens = static_cast<int>(qkv.size()) / (3 * width());
  CausalEvaOutput output;
  output.out.assign(size_t(tokens) * width(), NAN);
  output.lse.assign(size_t(tokens) * options_.shape.num_heads, NAN);
  CausalEvaSequence sequence;
  sequence.num_tokens = tokens;
  sequence.state.max_chunks = tokens / options_.shape.chunk;
  CausalEvaParams params = Params();
  params.sequences = {&sequence, 1};
  params.q = qkv.data();
  params.k = params.q + width();
  params.v = params.k + width();
  params.stride = 3 * width();
  params.out = output.out.data();
  params.out_stride = width();
  params.lse = output.lse.data();
  const absl::Status status = CausalEvaReference(params);
  EXPECT_TRUE(status.ok()) << status;
  return output;
}

}  // namespace evaserve

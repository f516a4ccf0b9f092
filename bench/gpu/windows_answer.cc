#include "bench/gpu/windows_answer.h"

#include <algorithm>
#include <cmath>

#include "bench/gpu/device_timer.h"
#include "kernels/serial_worker_pool.h"
#include "kernels/window_attend.h"

namespace evaserve {
namespace {

// The map as the CPU's kernels read it.
class HostMap {
 public:
  explicit HostMap(const LayerNumbers& numbers)
      : norm_(numbers.map.data() + int64_t{numbers.head_dim} * numbers.head_dim),
        size_(numbers.head_dim) {
    std::vector<float> weight(int64_t{size_} * size_);
    for (int64_t i = 0; i < size_; ++i) {
      for (int64_t o = 0; o < size_; ++o) weight[o * size_ + i] = numbers.map[i * size_ + o];
    }
    const WeightView view = {weight.data(), DType::kFloat32, size_, size_};
    weight_ = PackedWeight::Pack({&view, 1}, DType::kFloat32);
  }

  AdaptiveMap view() const { return {&weight_, norm_, norm_ + size_, norm_ + 2 * size_}; }

 private:
  const float* norm_;
  const int size_;
  PackedWeight weight_;
};

float ScaleOf(const LayerNumbers& numbers) {
  return 1.f / std::sqrt(static_cast<float>(numbers.head_dim));
}

// The state of one causal sequence, at first its own memory and nothing in it.
struct State {
  State(const CausalEvaShape& shape, int max_chunks)
      : rows(shape.num_heads * shape.head_dim),
        max_chunks(max_chunks),
        keys(int64_t{shape.num_keys()} * rows),
        values(keys.size()),
        open_q(int64_t{shape.chunk} * rows),
        k_bar(int64_t{max_chunks} * rows),
        beta(k_bar.size()) {}

  CausalEvaState view() {
    return {keys.data(), values.data(), open_q.data(), k_bar.data(), beta.data(), max_chunks};
  }

  int rows, max_chunks;
  std::vector<float> keys, values, open_q, k_bar, beta;
};

std::vector<float> RunCausal(const LayerNumbers& numbers, const CausalEvaShape& shape,
                             std::span<const CausalEvaSequence> sequences) {
  const int width = numbers.width();
  const HostMap map(numbers);
  std::vector<float> out(numbers.qkv.size() / 3);
  SerialWorkerPool workers;
  Must(CausalEvaCpu({.shape = shape,
                     .sequences = sequences,
                     .scale = ScaleOf(numbers),
                     .q = numbers.qkv.data(),
                     .k = numbers.qkv.data() + width,
                     .v = numbers.qkv.data() + 2 * width,
                     .stride = 3 * width,
                     .map_q = map.view(),
                     .map_k = map.view(),
                     .bias = numbers.bias.data(),
                     .out = out.data(),
                     .out_stride = width},
                    workers));
  return out;
}

// The state before a step, from its rows on the device.
State StateBefore(const LayerNumbers& numbers, const CausalEvaShape& shape,
                  const CausalStep& step) {
  State state(shape, step.max_chunks);
  const int d = shape.head_dim, width = numbers.width();
  for (int head = 0; head < shape.num_heads; ++head) {
    const auto copy = [&](int64_t row, int part, std::vector<float>& to, int64_t place) {
      std::copy_n(&numbers.qkv[((step.state_begin + row) * 3 + part) * width + head * d], d,
                  &to[place * d]);
    };
    for (int i = 0; i < step.position % shape.window; ++i) {
      copy(i, 1, state.keys, int64_t{head} * shape.num_keys() + i);
      copy(i, 2, state.values, int64_t{head} * shape.num_keys() + i);
    }
    const int open = step.position % shape.chunk;
    for (int i = 0; i < open; ++i) {
      copy(step.position % shape.window - open + i, 0, state.open_q,
           int64_t{head} * shape.chunk + i);
    }
  }
  const int64_t begin = step.landmark_begin * width;
  std::copy_n(&numbers.k_bar[begin], state.k_bar.size(), state.k_bar.data());
  std::copy_n(&numbers.beta[begin], state.beta.size(), state.beta.data());
  return state;
}

}  // namespace

std::vector<float> AnswerOfMaps(const LayerNumbers& numbers, std::span<const RegionItem> items) {
  const int width = numbers.width();
  const HostMap map(numbers);
  int64_t num_landmarks = 0;
  for (const RegionItem& item : items) num_landmarks += item.regions->num_chunks;
  std::vector<float> k_bar(num_landmarks * width), beta(k_bar.size()), out(numbers.qkv.size() / 3);
  SerialWorkerPool workers;
  LandmarksParams landmarks{.items = items,
                            .num_heads = numbers.num_heads,
                            .head_dim = numbers.head_dim,
                            .scale = ScaleOf(numbers),
                            .q = numbers.qkv.data(),
                            .k = numbers.qkv.data() + width,
                            .v = numbers.qkv.data() + 2 * width,
                            .stride = 3 * width,
                            .map_q = map.view(),
                            .map_k = map.view(),
                            .k_bar = k_bar.data(),
                            .beta = beta.data()};
  Must(LandmarksCpu(landmarks, workers));
  Must(WindowAttendCpu({.items = items,
                        .num_heads = numbers.num_heads,
                        .head_dim = numbers.head_dim,
                        .scale = landmarks.scale,
                        .q = landmarks.q,
                        .k = landmarks.k,
                        .v = landmarks.v,
                        .stride = landmarks.stride,
                        .k_bar = k_bar.data(),
                        .beta = beta.data(),
                        .bias = numbers.bias.data(),
                        .out = out.data(),
                        .out_stride = width},
                       workers));
  return out;
}

std::vector<float> AnswerOfTexts(const LayerNumbers& numbers, const CausalEvaShape& shape,
                                 std::span<const int> lengths) {
  std::vector<State> states;
  std::vector<CausalEvaSequence> sequences;
  for (const int length : lengths) states.emplace_back(shape, length / shape.chunk);
  int token = 0;
  for (size_t i = 0; i < lengths.size(); token += lengths[i++]) {
    sequences.push_back({states[i].view(), /*position=*/0, token, lengths[i]});
  }
  return RunCausal(numbers, shape, sequences);
}

std::vector<float> AnswerOfSteps(const LayerNumbers& numbers, const CausalEvaShape& shape,
                                 std::span<const CausalStep> steps) {
  std::vector<State> states;
  std::vector<CausalEvaSequence> sequences;
  for (const CausalStep& step : steps) states.push_back(StateBefore(numbers, shape, step));
  for (size_t i = 0; i < steps.size(); ++i) {
    sequences.push_back({states[i].view(), steps[i].position, steps[i].row_begin, 1});
  }
  return RunCausal(numbers, shape, sequences);
}

double RelativeError(std::span<const float> got, std::span<const float> want) {
  double difference = 0., size = 0.;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(double{got[i]} - want[i], 2);
    size += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(difference / size);
}

}  // namespace evaserve

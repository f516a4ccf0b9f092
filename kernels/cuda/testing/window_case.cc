#include "kernels/cuda/testing/window_case.h"

#include <cmath>
#include <limits>

#include "kernels/causal_eva.h"
#include "kernels/window_attend.h"

namespace evaserve {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

WindowCase::Map MapOf(const MapWeights& weights) {
  const size_t d = weights.bias.size();
  WindowCase::Map map = {std::vector<float>(d * d), weights.bias, weights.norm_weight,
                         weights.norm_bias};
  for (size_t i = 0; i < d * d; ++i) map.weight[i % d * d + i / d] = weights.weight[i];
  return map;
}

double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0., size = 0.;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(double{got[i]} - want[i], 2);
    size += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(difference / size);
}

}  // namespace

CudaMap WindowCase::Map::view() const {
  if (weight.empty()) return {};
  const bool has_norm = !norm_weight.empty();
  return {weight.data(), bias.data(), has_norm ? norm_weight.data() : nullptr,
          has_norm ? norm_bias.data() : nullptr};
}

WindowCase::WindowCase(const Options& options)
    : options_(options),
      random_(options.seed),
      weights_q_(RandomMap(options.head_dim, options.has_norm, options.seed)),
      weights_k_(RandomMap(options.head_dim, options.has_norm, options.seed + 10)),
      packed_q_(PackMap(weights_q_)),
      packed_k_(PackMap(weights_k_)) {
  if (options.has_map_q) map_q = MapOf(weights_q_);
  map_k = MapOf(weights_k_);
  MakeItems();
  const int words = SizeOf(options.type) / 2;
  qkv.assign(int64_t{num_tokens_} * stride() * words, 0xffff);
  for (int64_t i = 0; i < int64_t{num_tokens_} * stride(); ++i) {
    if (i % stride() < 3 * width()) StoreRandom(qkv, i, options.spread);
  }
  out.assign(int64_t{num_tokens_} * out_stride() * words, 0xffff);
  lse.assign(int64_t{num_tokens_} * options.num_heads, kNan);
  k_bar.assign(std::max<int64_t>(plan_.landmark_elements, 8) * words, 0xffff);
  beta = k_bar;
  if (!options.has_bias) return;
  bias.resize(plan_.bias_head_stride * (is_causal() ? 1 : options.num_heads));
  for (float& x : bias) x = std::normal_distribution<float>(0.f, 2.f)(random_);
}

void WindowCase::MakeItems() {
  int64_t num_landmarks = 0;
  for (const RegionShape& shape : options_.items) {
    regions_.push_back(std::make_unique<Regions>(MakeRegions(shape).value()));
    items_.push_back({regions_.back().get(), num_tokens_, num_landmarks});
    num_tokens_ += regions_.back()->num_tokens;
    num_landmarks += regions_.back()->num_chunks;
  }
  for (const int length : options_.lengths) num_tokens_ += length;
  CausalEvaShape causal = options_.causal;
  causal.num_heads = options_.num_heads;
  causal.head_dim = options_.head_dim;
  plan_ = is_causal() ? PlanCausal(options(), causal, options_.lengths).value()
                      : PlanWindows(options(), items_).value();
}

WindowOptions WindowCase::options() const {
  return {{options_.type, options_.head_dim},
          options_.num_heads,
          1.f / std::sqrt(static_cast<float>(options_.head_dim))};
}

void WindowCase::StoreRandom(std::vector<uint16_t>& to, int64_t index, float spread) {
  StoreElement(to.data(), options_.type, index,
               std::normal_distribution<float>(0.f, spread)(random_));
}

std::vector<float> WindowCase::Floats(const std::vector<uint16_t>& from) const {
  std::vector<float> floats(from.size() * 2 / SizeOf(options_.type));
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = Load(from, i);
  return floats;
}

LandmarksLayer WindowCase::landmarks() {
  const int64_t part = int64_t{width()} * SizeOf(options_.type) / 2;
  LandmarksLayer layer;
  layer.q = qkv.data();
  layer.k = qkv.data() + part;
  layer.v = qkv.data() + 2 * part;
  layer.stride = stride();
  layer.map_q = map_q.view();
  layer.map_k = map_k.view();
  layer.mu_scale = is_causal() ? 1.f : 0.5f;
  layer.k_bar = k_bar.data();
  layer.beta = beta.data();
  return layer;
}

WindowLayer WindowCase::attend() {
  const LandmarksLayer same = landmarks();
  WindowLayer layer;
  layer.q = same.q;
  layer.k = same.k;
  layer.v = same.v;
  layer.q_stride = layer.kv_stride = stride();
  layer.k_bar = k_bar.data();
  layer.beta = beta.data();
  layer.bias = bias.empty() ? nullptr : bias.data();
  layer.bias_is_shared = is_causal();
  layer.out = out.data();
  layer.out_stride = out_stride();
  layer.lse = lse.data();
  return layer;
}

LandmarksParams WindowCase::ReferenceLandmarks(const std::vector<float>& rows) const {
  LandmarksParams params;
  params.items = items_;
  params.num_heads = options_.num_heads;
  params.head_dim = options_.head_dim;
  params.scale = options().scale;
  params.q = rows.data();
  params.k = params.q + width();
  params.v = params.k + width();
  params.stride = stride();
  if (options_.has_map_q) params.map_q = ViewMap(weights_q_, packed_q_);
  params.map_k = ViewMap(weights_k_, packed_k_);
  return params;
}

double WindowCase::LandmarksError() const {
  const std::vector<float> rows = Floats(qkv);
  std::vector<float> want_k_bar(plan_.landmark_elements), want_beta(want_k_bar.size());
  LandmarksParams params = ReferenceLandmarks(rows);
  params.k_bar = want_k_bar.data();
  params.beta = want_beta.data();
  if (!LandmarksReference(params).ok()) return kNan;
  const double keys = RelativeError(Floats(k_bar), want_k_bar);
  const double values = RelativeError(Floats(beta), want_beta);
  return std::isnan(keys) || keys > values ? keys : values;
}

absl::Status WindowCase::AttendReference(std::vector<float>& want,
                                         std::vector<float>& want_lse) const {
  const std::vector<float> rows = Floats(qkv), keys = Floats(k_bar), values = Floats(beta);
  const LandmarksParams landmarks = ReferenceLandmarks(rows);
  const auto fill = [&](auto& params) {
    params.scale = landmarks.scale;
    params.q = landmarks.q;
    params.k = landmarks.k;
    params.v = landmarks.v;
    params.stride = landmarks.stride;
    params.bias = bias.empty() ? nullptr : bias.data();
    params.out = want.data();
    params.out_stride = width();
    params.lse = want_lse.data();
  };
  if (is_causal()) {
    CausalEvaParams params;
    fill(params);
    params.shape = options_.causal;
    params.shape.num_heads = options_.num_heads;
    params.shape.head_dim = options_.head_dim;
    params.map_q = landmarks.map_q;
    params.map_k = landmarks.map_k;
    std::vector<CausalEvaSequence> sequences;
    int token = 0;
    for (const int length : options_.lengths) {
      CausalEvaSequence& sequence = sequences.emplace_back();
      sequence.token_begin = token;
      sequence.num_tokens = length;
      sequence.state.max_chunks = length;
      token += length;
    }
    params.sequences = sequences;
    return CausalEvaReference(params);
  }
  WindowAttendParams params;
  fill(params);
  params.items = items_;
  params.num_heads = options_.num_heads;
  params.head_dim = options_.head_dim;
  params.k_bar = keys.data();
  params.beta = values.data();
  return WindowAttendReference(params);
}

WindowCase::Error WindowCase::AttendError() const {
  std::vector<float> want(int64_t{num_tokens_} * width()), want_lse(lse.size()), got(want.size());
  if (!AttendReference(want, want_lse).ok()) return {kNan, kNan};
  for (size_t i = 0; i < got.size(); ++i) {
    got[i] = Load(out, int64_t(i) / width() * out_stride() + int64_t(i) % width());
  }
  Error error{RelativeError(got, want), 0.};
  for (size_t i = 0; i < lse.size(); ++i) {
    const double e = std::fabs(lse[i] - want_lse[i]);
    if (std::isnan(e) || e > error.lse) error.lse = e;
  }
  return error;
}

bool WindowCase::GapsAreWritten() const {
  for (int64_t i = 0; i < int64_t{num_tokens_} * out_stride(); ++i) {
    if (i % out_stride() >= width() && !std::isnan(Load(out, i))) return true;
  }
  return false;
}

}  // namespace evaserve

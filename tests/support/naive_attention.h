#pragma once
#include <cmath>
#include <limits>

#include "autograd/attention.h"
#include "tests/support/op_case.h"

// The oracle of attention's tests.
namespace lightcone::test {

using Offsets = std::vector<double>;  ///< of the rows of jets
inline Offsets offsets(const std::vector<int64_t>& lengths) {
  Offsets ptr{0};
  for (int64_t n : lengths) ptr.push_back(ptr.back() + n);
  return ptr;
}
inline Tensor to_ptr(Context& ctx, const Offsets& ptr) {
  return ctx.offsets(std::vector<int32_t>(ptr.begin(), ptr.end()));
}

/// Heads of one segment in a fused or separate array: the oracle's own reading of the layouts.
struct Heads {
  Layout layout;
  int64_t parts, channels, column;
  int64_t index(const Array& x, int64_t t, int64_t h, int64_t feature) const {
    const int64_t c = column + h * channels + feature % channels, p = feature / channels, last = x.shape[-1];
    if (layout == Layout::scalars) return t * last + c;
    return layout == Layout::vectors ? (t * parts + p) * last + c : (p * x.shape[1] + t) * last + c;
  }
};

/// softmax(scale sum <q, k>) v, one pair after the other.
struct Naive {
  Offsets q_ptr, k_ptr;
  AttentionOptions options;
  std::vector<Layout> layouts{Layout::scalars};
  std::vector<uint32_t> negative{0};
  std::vector<double> uniforms{};
  bool fused = true;

  std::vector<Array> operator()(const std::vector<Array>& x) const {
    const int64_t H = options.heads, Hk = options.kv_heads ? options.kv_heads : H, group = H / Hk;
    std::vector<Array> ys;
    std::vector<Heads> q, k, v, y;
    int64_t size = 0;
    auto keys_of = [&](size_t i) -> const Array& { return fused ? x[i] : x[1]; };
    for (size_t i = 0; i < layouts.size(); ++i) {
      const int64_t parts = layouts[i] == Layout::scalars ? 1 : x[i].shape[layouts[i] == Layout::vectors ? 1 : 0];
      const int64_t channels = x[i].shape[-1] / (fused ? H + 2 * Hk : H), first = fused ? H * channels : 0;
      q.push_back({layouts[i], parts, channels, 0});
      k.push_back({layouts[i], parts, channels, first});
      v.push_back({layouts[i], parts, channels, first + Hk * channels});
      Shape shape = x[i].shape;
      shape[-1] = H * channels;
      ys.push_back(zeros(shape));
      size += parts * channels;
    }
    const double scale = options.scale.value_or(1 / std::sqrt(double(size)));
    const int64_t all_keys = k_ptr.back();
    for (size_t b = 0; b + 1 < q_ptr.size(); ++b)
      for (int64_t t = q_ptr[b]; t < q_ptr[b + 1]; ++t)
        for (int64_t h = 0; h < H; ++h) {
          std::vector<double> p;
          double sum = 0, top = -std::numeric_limits<double>::infinity();
          for (int64_t j = k_ptr[b]; j < k_ptr[b + 1]; ++j) {
            double s = 0;
            for (size_t i = 0; i < q.size(); ++i)
              for (int64_t f = 0; f < q[i].parts * q[i].channels; ++f)
                s += (negative[i] >> (f / q[i].channels) & 1 ? -1 : 1) * x[i][q[i].index(x[i], t, h, f)] *
                     keys_of(i)[k[i].index(keys_of(i), j, h / group, f)];
            p.push_back(scale * s);
            top = std::max(top, p.back());
          }
          for (double& e : p) sum += e = std::exp(e - top);
          for (int64_t j = k_ptr[b]; j < k_ptr[b + 1]; ++j) {
            double weight = p[j - k_ptr[b]] / sum;
            if (!uniforms.empty())
              weight *= uniforms[(t * H + h) * all_keys + j] >= options.dropout ? 1 / (1 - options.dropout) : 0;
            for (size_t i = 0; i < v.size(); ++i)
              for (int64_t f = 0; f < v[i].parts * v[i].channels; ++f)
                ys[i][q[i].index(ys[i], t, h, f)] += weight * keys_of(i)[v[i].index(keys_of(i), j, h / group, f)];
          }
        }
    return ys;
  }
};

/// Self-attention of these jets, q, k and v side by side.
inline OpCase fused_case(const std::vector<int64_t>& lengths, int64_t head_dim, AttentionOptions o) {
  const Offsets ptr = offsets(lengths);
  const int64_t T = ptr.back(), Hk = o.kv_heads ? o.kv_heads : o.heads;
  return {.name = fmt::format("attention jets {} heads {}/{} of {}", fmt::join(lengths, ","), o.heads, Hk, head_dim),
          .inputs = {normal({T, (o.heads + 2 * Hk) * head_dim}, 1 + T)},
          .op = [=](auto& x) { return std::vector{attention(x[0], to_ptr(x[0].context(), ptr), o)}; },
          .oracle = Naive{ptr, ptr, o}};
}

}  // namespace lightcone::test

// Ragged batches and four-momenta.
#include <algorithm>
#include <cmath>

#include "autograd/attention.h"
#include "autograd/minkowski.h"
#include "autograd/segment.h"
#include "tests/support/lorentz.h"
#include "tests/support/random_ops.h"

namespace lightcone::test {

namespace {

Tensor integers(const Var& like, const std::vector<double>& values, DType dtype = DType::i32) {
  return like.context().of({static_cast<int64_t>(values.size())}, dtype, values);
}

// One input of an attention: where feature f = part * channels + channel of head h of row t stands.
struct Features {
  Layout layout;
  int64_t parts, channels;
  uint32_t negative;
  int64_t size() const { return parts * channels; }
  Shape shape(int64_t rows, int64_t columns) const {
    if (layout == Layout::scalars) return {rows, columns};
    return layout == Layout::vectors ? Shape{rows, parts, columns} : Shape{parts, rows, columns};
  }
  int64_t at(const Array& x, int64_t t, int64_t column, int64_t f) const {
    const int64_t part = f / channels, rows = x.shape[layout == Layout::multivectors ? 1 : 0];
    return (layout == Layout::multivectors ? part * rows + t : t * parts + part) * x.shape[-1] + column + f % channels;
  }
  double sign(int64_t f) const { return negative >> (f / channels) & 1 ? -1 : 1; }
};

// softmax(scale <q, k>) v by the formula. Queries stand in q[i] from column 0; keys, then values, in kv[i] from
// `first`.
std::vector<Array> naive_attention(const std::vector<const Array*>& q, const std::vector<const Array*>& kv,
                                   const std::vector<Features>& parts, bool fused, const std::vector<double>& q_ptr,
                                   const std::vector<double>& k_ptr, int64_t H, int64_t Hk, double scale) {
  std::vector<Array> ys;
  for (const Features& f : parts) ys.push_back(zeros(f.shape(static_cast<int64_t>(q_ptr.back()), H * f.channels)));
  const auto column = [&](const Features& f, int64_t block, int64_t h) {
    return ((fused ? H : 0) + block * Hk + h * Hk / H) * f.channels;
  };
  for (size_t b = 0; b + 1 < q_ptr.size(); ++b)
    for (int64_t t = int64_t(q_ptr[b]); t < q_ptr[b + 1]; ++t)
      for (int64_t h = 0; h < H; ++h) {
        std::vector<double> p;
        double sum = 0;
        for (int64_t j = int64_t(k_ptr[b]); j < k_ptr[b + 1]; ++j) {
          double score = 0;
          for (size_t i = 0; i < parts.size(); ++i)
            for (int64_t f = 0; f < parts[i].size(); ++f)
              score += parts[i].sign(f) * (*q[i])[parts[i].at(*q[i], t, h * parts[i].channels, f)] *
                       (*kv[i])[parts[i].at(*kv[i], j, column(parts[i], 0, h), f)];
          p.push_back(std::exp(scale * score));
          sum += p.back();
        }
        for (size_t n = 0; n < p.size(); ++n)
          for (size_t i = 0; i < parts.size(); ++i)
            for (int64_t f = 0; f < parts[i].size(); ++f)
              ys[i][parts[i].at(ys[i], t, h * parts[i].channels, f)] +=
                  p[n] / sum * (*kv[i])[parts[i].at(*kv[i], int64_t(k_ptr[b]) + int64_t(n), column(parts[i], 1, h), f)];
      }
  return ys;
}

}  // namespace

OpCase random_attention(Choice& c) {
  const auto ptr = c.offsets();
  AttentionOptions o;
  o.kv_heads = c.integer(1, 3);
  o.heads = o.kv_heads * c.integer(1, 3);
  const int64_t H = o.heads, Hk = o.kv_heads, T = static_cast<int64_t>(ptr.back());
  if (c.chance(0.2)) {
    auto k_ptr = ptr;
    // As many jets, of other lengths; at least two keys, so that not every gradient of the queries is zero.
    for (size_t b = 1; b < k_ptr.size(); ++b) k_ptr[b] = k_ptr[b - 1] + double(c.integer(0, 3) ? c.extent(20, 2) : 0);
    if (k_ptr.back() == 0)
      for (size_t b = 1; b < k_ptr.size(); ++b) k_ptr[b] = k_ptr[b - 1] + 2;
    const Features f{Layout::scalars, 1, c.extent(20, 1), 0};
    o.scale = c.real(0.1, 1) / std::sqrt(double(f.size()));
    return {
        .name = fmt::format("cross attention, rows {} to {}, heads {}/{} of {}", fmt::join(ptr, " "),
                            fmt::join(k_ptr, " "), H, Hk, f.size()),
        .inputs = {c.normal({T, H * f.channels}), c.normal({static_cast<int64_t>(k_ptr.back()), 2 * Hk * f.channels})},
        .op =
            [=](auto& x) {
              return std::vector{cross_attention(x[0], x[1], integers(x[0], ptr), integers(x[0], k_ptr), o)};
            },
        .oracle = [=](auto& x) { return naive_attention({&x[0]}, {&x[1]}, {f}, false, ptr, k_ptr, H, Hk, *o.scale); }};
  }
  std::vector<Features> parts;
  std::vector<Array> inputs;
  std::string sizes;
  int64_t size = 0;
  for (int64_t n = c.of<int64_t>({1, 1, 2, 3}); n > 0; --n) {
    const Layout layout = c.of({Layout::scalars, Layout::vectors, Layout::multivectors});
    const int64_t count = layout == Layout::scalars ? 1 : layout == Layout::vectors ? 4 : 16;
    parts.push_back({layout, count, c.extent(20 / count + 1, 1), uint32_t(c.integer(0, (int64_t{1} << count) - 1))});
    inputs.push_back(c.normal(parts.back().shape(T, (H + 2 * Hk) * parts.back().channels)));
    sizes += fmt::format(" {}x{}", count, parts.back().channels);
    size += parts.back().size();
  }
  if (c.chance(0.5)) o.scale = c.real(0.1, 1) / std::sqrt(double(size));
  return {.name = fmt::format("attention, rows {}, heads {}/{} of{}", fmt::join(ptr, " "), H, Hk, sizes),
          .inputs = inputs,
          .op =
              [=](auto& x) {
                std::vector<AttentionInput> in;
                for (size_t i = 0; i < parts.size(); ++i) in.push_back({x[i], parts[i].layout, parts[i].negative});
                return attention(in, integers(x[0], ptr), o);
              },
          .oracle =
              [=](auto& x) {
                std::vector<const Array*> in;
                for (const Array& a : x) in.push_back(&a);
                return naive_attention(in, in, parts, true, ptr, ptr, H, Hk, o.scale.value_or(1 / std::sqrt(size)));
              }};
}

OpCase random_segment(Choice& c) {
  const int64_t C = c.extent(40), kind = c.integer(0, 7);
  const auto ptr = c.offsets(kind == 7);  // first_rows() takes no empty jets
  const int64_t B = static_cast<int64_t>(ptr.size()) - 1, T = static_cast<int64_t>(ptr.back());
  const auto rows = fmt::format("rows {}", fmt::join(ptr, " "));
  using Arrays = std::vector<Array>;
  // f(jet, row, column) for every row
  const auto walk = [=](auto f) {
    for (int64_t b = 0; b < B; ++b)
      for (int64_t t = int64_t(ptr[b]); t < ptr[b + 1]; ++t)
        for (int64_t k = 0; k < C; ++k) f(b, t, k);
  };
  if (kind < 2)
    return {.name = fmt::format("segment_{}, {}", kind ? "mean" : "sum", rows),
            .inputs = {c.positive({T, C})},
            .op = [=](auto& x) { return std::vector{(kind ? segment_mean : segment_sum)(x[0], integers(x[0], ptr))}; },
            .oracle =
                [=](auto& x) {
                  Array y = zeros({B, C});
                  walk([&](int64_t b, int64_t t, int64_t k) {
                    y.at(b, k) += x[0].at(t, k) / (kind ? ptr[b + 1] - ptr[b] : 1);
                  });
                  return Arrays{y};
                }};
  if (kind == 2)
    return {.name = "segment_max, " + rows,
            .inputs = {c.normal({T, C})},
            .op = [=](auto& x) { return std::vector{segment_max(x[0], integers(x[0], ptr))}; },
            .oracle =
                [=](auto& x) {
                  Array y = zeros({B, C});
                  walk([&](int64_t b, int64_t t, int64_t k) {
                    y.at(b, k) = t == ptr[b] ? x[0].at(t, k) : std::max(y.at(b, k), x[0].at(t, k));
                  });
                  return Arrays{y};
                },
            .step = 1e-7};  // a step must not change which one is the largest
  if (kind == 3)
    return {.name = "segment_broadcast, " + rows,
            .inputs = {c.normal({B, C})},
            .op = [=](auto& x) { return std::vector{segment_broadcast(x[0], integers(x[0], ptr))}; },
            .oracle =
                [=](auto& x) {
                  Array y = zeros({T, C});
                  walk([&](int64_t b, int64_t t, int64_t k) { y.at(t, k) = x[0].at(b, k); });
                  return Arrays{y};
                }};
  if (kind < 6) {
    const bool gather = kind == 4;
    const int64_t N = c.extent(30, 1), M = c.extent(60);
    const DType type = c.of({DType::i32, DType::i64});
    std::vector<double> index;
    for (int64_t m = 0; m < M; ++m) index.push_back(double(c.integer(0, N - 1)));
    return {.name = fmt::format("{} {} of {} rows by {}", gather ? "gather_rows" : "scatter_add_rows", M, N, type),
            .inputs = {gather ? c.normal({N, C}) : c.positive({M, C})},
            .op =
                [=](auto& x) {
                  const Tensor i = integers(x[0], index, type);
                  return std::vector{gather ? gather_rows(x[0], i) : scatter_add_rows(x[0], i, N)};
                },
            .oracle =
                [=](auto& x) {
                  Array y = zeros({gather ? M : N, C});
                  for (int64_t m = 0; m < M; ++m)
                    for (int64_t k = 0; k < C; ++k) {
                      const int64_t n = static_cast<int64_t>(index[m]);
                      y.at(gather ? m : n, k) += x[0].at(gather ? n : m, k);
                    }
                  return Arrays{y};
                }};
  }
  if (kind == 6)
    return {.name = "prepend_rows, " + rows,
            .inputs = {c.normal({B, C}), c.normal({T, C})},
            .op =
                [=](auto& x) {
                  return std::vector{prepend_rows(x[0], x[1], prepend_ptr(x[0].context(), integers(x[0], ptr)))};
                },
            .oracle =
                [=](auto& x) {
                  Array y = zeros({T + B, C});
                  for (int64_t b = 0; b < B; ++b)
                    for (int64_t k = 0; k < C; ++k) y.at(int64_t(ptr[b]) + b, k) = x[0].at(b, k);
                  walk([&](int64_t b, int64_t t, int64_t k) { y.at(t + b + 1, k) = x[1].at(t, k); });
                  return Arrays{y};
                }};
  return {.name = "first_rows and drop_first_rows, " + rows,
          .inputs = {c.normal({T, C})},
          .op =
              [=](auto& x) {
                const Tensor p = integers(x[0], ptr);
                return std::vector{first_rows(x[0], p), drop_first_rows(x[0], p)};
              },
          .oracle =
              [=](auto& x) {
                Array first = zeros({B, C}), rest = zeros({T - B, C});
                walk([&](int64_t b, int64_t t, int64_t k) {
                  (t == ptr[b] ? first.at(b, k) : rest.at(t - b - 1, k)) = x[0].at(t, k);
                });
                return Arrays{first, rest};
              }};
}

OpCase random_minkowski(Choice& c) {
  const int64_t kind = c.integer(0, 7), T = c.extent(c.large() ? 9000 : 70), N = c.extent(10);
  Array p = momenta(T, c.seed(), c.real(5, 20), c.real(5, 20));
  const auto per_momentum = [=](auto f) {
    return [=](const std::vector<Array>& x) {
      Array y = zeros({T});
      for (int64_t t = 0; t < T; ++t) y[t] = f(&x[0].values[4 * t], &x[x.size() > 1].values[4 * t]);
      return std::vector{y};
    };
  };
  const auto inner = [](const double* a, const double* b) {
    return a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
  };
  OpCase out{.name = "minkowski_inner",
             .inputs = {p},
             .op = [](auto& x) { return std::vector{minkowski_inner(x[0], x[1])}; },
             .oracle = per_momentum(inner),
             .dtypes = {DType::f64, DType::f32},
             .step = 1e-6};
  const auto one = [&](const char* name, Var (*op)(const Var&), auto f) {
    out.name = name;
    out.op = [op](auto& x) { return std::vector{op(x[0])}; };
    out.oracle = per_momentum([=](const double* a, const double*) { return f(a); });
  };
  if (kind == 0) out.inputs.push_back(momenta(T, c.seed()));
  if (kind == 1) one("minkowski_squarednorm", minkowski_squarednorm, [=](auto* a) { return inner(a, a); });
  if (kind == 2) one("pt", pt, [](auto* a) { return std::hypot(a[1], a[2]); });
  if (kind == 3) one("phi", phi, [](auto* a) { return std::atan2(a[2], a[1]); });
  if (kind == 4) one("eta", eta, [](auto* a) { return std::asinh(a[3] / std::hypot(a[1], a[2])); });
  if (kind == 5) one("mass", mass, [=](auto* a) { return std::sqrt(inner(a, a)); });
  if (kind == 6) {
    out.name = "restframe_boost";
    out.op = [](auto& x) { return std::vector{restframe_boost(x[0])}; };
    out.oracle = [=](auto& x) {
      Array y = zeros({T, 4, 4});
      for (int64_t t = 0; t < T; ++t) {
        const double* a = &x[0].values[4 * t];
        const double m = std::sqrt(inner(a, a)), gamma = a[0] / m;
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j)
            y[16 * t + 4 * i + j] = i == 0 && j == 0 ? gamma
                                    : i == 0         ? -a[j] / m
                                    : j == 0         ? -a[i] / m
                                                     : (i == j) + a[i] * a[j] / (m * m * (1 + gamma));
      }
      return std::vector{y};
    };
  }
  if (kind == 7) {
    const bool many = c.chance(0.6);
    out.name = "lorentz_transform";
    out.inputs = {c.normal({T, 4, 4}), c.normal(many ? Shape{T, N, 4} : Shape{T, 4})};
    out.op = [](auto& x) { return std::vector{lorentz_transform(x[0], x[1])}; };
    out.oracle = [=](auto& x) {
      Array y = zeros(x[1].shape);
      for (int64_t n = 0; n < y.shape.numel() / 4; ++n)
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j) y[4 * n + i] += x[0][16 * (many ? n / N : n) + 4 * i + j] * x[1][4 * n + j];
      return std::vector{y};
    };
  }
  return out;
}

}  // namespace lightcone::test

#include "kernels/geometric_algebra.h"

#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/elementwise_math.h"
#include "kernels/geometric_algebra_math.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace cpu {
using namespace geometric_algebra;

/// f(begin, end) for chunks of tokens whose multivectors have so many columns.
template <class F>
void for_tokens(Context& ctx, int64_t tokens, int64_t columns, F&& f) {
  parallel_chunks(ctx, tokens, grain_for(pairs * columns), [&](int64_t, int64_t begin, int64_t end) { f(begin, end); });
}

/// f(std::integral_constant<int, i>) for i = 0 … n - 1, written out.
template <int n, class F>
[[gnu::always_inline]] inline void unrolled(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (f(std::integral_constant<int, i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

/// sum over j of sign a[j] b[partner], the signs and partners those of terms(row, j).
template <Term (*terms)(int, int), int row, class V>
[[gnu::always_inline]] inline V product_row(const V* a, const V* b) {
  V sum = {};
  unrolled<components>([&](auto j) {
    constexpr Term t = terms(row, j());
    if constexpr (j == 0)
      sum = t.sign > 0 ? a[0] * b[t.partner] : -a[0] * b[t.partner];
    else if constexpr (t.sign > 0)
      sum += a[j] * b[t.partner];
    else
      sum -= a[j] * b[t.partner];
  });
  return sum;
}

/// f(at) for C columns: whole registers, then single elements (see map_row).
template <class S, class F>
[[gnu::always_inline]] inline void for_columns(int64_t C, F&& f) {
  int64_t c = 0;
  for (; c + lanes<S> <= C; c += lanes<S>) f(WholeRegister<S>{c});
  for (; c < C; ++c) f(SingleElement<S>{c});
}
template <class S, class T>
[[gnu::always_inline]] inline void put(WholeRegister<S> at, Vector<S> value, T* to) {
  store(value, to + at.place);
}
template <class S, class T>
[[gnu::always_inline]] inline void put(SingleElement<S> at, S value, T* to) {
  to[at.place] = static_cast<T>(value);
}

/// The address of each component's first column: `pair` elements from pair to pair, `half` from half to half.
template <class T>
std::array<T*, components> places(T* x, int64_t pair, int64_t half) {
  std::array<T*, components> out;
  for (int i = 0; i < components; ++i) out[i] = x + i / 2 * pair + i % 2 * half;
  return out;
}

template <class X, class Y, class S = sum_type<X>>
void geometric_product(Context& ctx, int64_t T, int64_t C, const X* lr, Y* y) {
  for_tokens(ctx, T, 6 * C, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto left = places(lr + t * 4 * C, T * 4 * C, C), right = places(lr + t * 4 * C + 2 * C, T * 4 * C, C);
      const auto out = places(y + t * 2 * C, T * 2 * C, C);
      for_columns<S>(C, [&](auto at) {
        decltype(at(left[0])) a[components], b[components];
        for (int i = 0; i < components; ++i) a[i] = at(left[i]), b[i] = at(right[i]);
        unrolled<components>([&](auto i) { put(at, product_row<term, i()>(a, b), out[i]); });
      });
    }
  });
}

template <class X, class Y, class S = sum_type<X>>
void geometric_product_backward(Context& ctx, int64_t T, int64_t C, const Y* dy, const X* lr, X* dlr) {
  for_tokens(ctx, T, 10 * C, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = t * 4 * C, stride = T * 4 * C;
      const auto left = places(lr + row, stride, C), right = places(lr + row + 2 * C, stride, C);
      const auto dleft = places(dlr + row, stride, C), dright = places(dlr + row + 2 * C, stride, C);
      const auto in = places(dy + t * 2 * C, T * 2 * C, C);
      for_columns<S>(C, [&](auto at) {
        decltype(at(left[0])) g[components], other[components];
        for (int i = 0; i < components; ++i) g[i] = at(in[i]), other[i] = at(right[i]);
        unrolled<components>([&](auto j) { put(at, product_row<left_term, j()>(g, other), dleft[j]); });
        for (int i = 0; i < components; ++i) other[i] = at(left[i]);
        unrolled<components>([&](auto k) { put(at, product_row<right_term, k()>(g, other), dright[k]); });
      });
    }
  });
}

template <class T>
struct Slope {
  T value, derivative;
};

template <Gate f, class T>
Slope<T> gate(T s) {
  if constexpr (f == Gate::relu) {
    return {s <= 0 ? T(0) : s, s > 0 ? T(1) : T(0)};
  } else if constexpr (f == Gate::gelu) {
    constexpr T scale = 0.79788456080286535588, cubic = 0.044715;  // sqrt(2 / pi)
    const T u = vector_math::tanh(scale * (s + cubic * s * s * s));
    return {T(0.5) * s * (1 + u), T(0.5) * (1 + u) + T(0.5) * s * (1 - u * u) * scale * (1 + 3 * cubic * s * s)};
  } else {
    const T p = elementwise::sigmoid(s);
    if constexpr (f == Gate::sigmoid)
      return {p, p * (1 - p)};
    else
      return {s * p, p * (1 + s * (1 - p))};
  }
}

/// The scalars of tokens [begin, end), close together.
template <class X, class S>
void scalars(int64_t begin, int64_t end, int64_t C, const X* x, S* to) {
  for (int64_t t = begin; t < end; ++t, to += C) convert(C, x + t * 2 * C, to);
}

template <Gate f, class X, class Y, class S = sum_type<X>>
void gated(Context& ctx, int64_t T, int64_t C, const X* x, Y* y) {
  for_tokens(ctx, T, 2 * C, [&](int64_t begin, int64_t end) {
    const int64_t count = (end - begin) * C;
    auto gates = ctx.scratch<S>(count);
    scalars(begin, end, C, x, gates.data());
    vector_math::map(
        count, gates.data(), [](S s) { return gate<f>(s).value; }, gates.data());
    for (int64_t p = 0; p < pairs; ++p)
      for (int64_t t = begin; t < end; ++t)
        for (int64_t at_half = (p * T + t) * 2 * C, h = 0; h < 2; ++h, at_half += C)
          map_row(C, y + at_half, [&](auto at) { return at(gates.data() + (t - begin) * C) * at(x + at_half); });
  });
}

template <Gate f, class X, class Y, class S = sum_type<X>>
void gated_backward(Context& ctx, int64_t T, int64_t C, const Y* dy, const X* x, X* dx) {
  for_tokens(ctx, T, 4 * C, [&](int64_t begin, int64_t end) {
    const int64_t count = (end - begin) * C;
    auto gates = ctx.scratch<S>(3 * count);
    S *values = gates.data(), *slopes = values + count, *sums = slopes + count;
    scalars(begin, end, C, x, sums);
    vector_math::map_pair(
        count, values, slopes,
        [](S s) {
          const Slope<S> g = gate<f>(s);
          return std::pair{g.value, g.derivative};
        },
        sums);
    std::fill_n(sums, count, S(0));
    for (int64_t p = pairs; p-- > 0;)
      for (int64_t t = begin; t < end; ++t)
        for (int64_t h = 2; h-- > 0;) {
          const int64_t here = (p * T + t) * 2 * C + h * C, token = (t - begin) * C;
          map_row(C, sums + token, [&](auto at) { return at(sums + token) + at(dy + here) * at(x + here); });
          if (p == 0 && h == 0)
            map_row(C, dx + here, [&](auto at) {
              return at(values + token) * at(dy + here) + at(slopes + token) * at(sums + token);
            });
          else
            map_row(C, dx + here, [&](auto at) { return at(values + token) * at(dy + here); });
        }
  });
}

template <class V>
[[gnu::always_inline]] inline V magnitude(V x) {
  return x < 0 ? -x : x;
}
/// 1, -1, or 0 for 0.
template <class V>
[[gnu::always_inline]] inline V sign_of(V x) {
  const V zero = x - x;  // NaN stays NaN
  return x > 0 ? zero + 1 : x < 0 ? zero - 1 : zero;
}

/// The squares of a token's components, column by column; `stride` elements from pair to pair. The two vectors of a pair
/// of halves have squares of opposite sign, which does not matter; bivectors have - in half 0 and + in half 1.
template <class At, class X>
[[gnu::always_inline]] inline auto vector_square(At at, const X* x, int64_t stride) {
  auto square = [&](int p) { return at(x + p * stride) * at(x + p * stride); };
  return square(1) - square(2) - square(3) - square(4);
}
template <class At, class X>
[[gnu::always_inline]] inline auto bivector_square(At at, const X* x, int64_t stride) {
  auto square = [&](int p) { return at(x + p * stride) * at(x + p * stride); };
  return square(5) + square(6) + square(7);
}

/// Each lane i together with lane i ^ step.
template <class S, int64_t step>
constexpr int64_t partner(int64_t i) {
  return i ^ step;
}
/// Sums within runs of `width` lanes, a power of two, in each lane of the run.
template <int64_t width, class S>
[[gnu::always_inline]] inline Vector<S> sum_of_runs(Vector<S> x) {
  if constexpr (width == 1)
    return x;
  else
    return sum_of_runs<width / 2, S>(x + shuffle<S, partner<S, width / 2>>(x, x));
}

/// Groups that a register holds whole, heads of few channels: everything stays in registers.
template <int64_t width, class X, class Y, class S>
void norm_narrow(int64_t columns, int64_t stride, const X* x, S eps, Y* y, S* rstd) {
  constexpr int64_t group = width / 2;
  for (int64_t c = 0; c < columns; c += lanes<S>) {
    const WholeRegister<S> at{c};
    const Vector<S> b = bivector_square(at, x, stride);
    // Each channel's bivectors count in both halves.
    const Vector<S> norm = at(x) * at(x) + magnitude(vector_square(at, x, stride)) +
                           S(0.5) * magnitude(b - shuffle<S, partner<S, group>>(b, b));
    const Vector<S> mean = sum_of_runs<width, S>(norm) / S(group);
    S r[lanes<S>];
    store<S>(mean < eps ? splat(eps) : mean, r);
    for (int64_t i = 0; i < lanes<S>; ++i) r[i] = 1 / std::sqrt(r[i]);
    for (int64_t i = 0; i < lanes<S>; i += width) rstd[(c + i) / width] = r[i];
    const Vector<S> factor = load(r);
    for (int64_t p = 0; p < pairs; ++p) put(at, at(x + p * stride) * factor, y + p * stride);
  }
}

template <int64_t width, class X, class Y, class S>
void norm_narrow_backward(int64_t columns, int64_t stride, const Y* dy, const Y* y, const S* rstd, S at_bound,
                          const X* add, X* dx) {
  constexpr int64_t group = width / 2;
  for (int64_t c = 0; c < columns; c += lanes<S>) {
    const WholeRegister<S> at{c};
    Vector<S> dot = at(dy) * at(y), r;
    for (int64_t p = 1; p < pairs; ++p) dot += at(dy + p * stride) * at(y + p * stride);
    for (int64_t i = 0; i < lanes<S>; ++i) r[i] = rstd[(c + i) / width];
    const Vector<S> factor = r < at_bound ? r / S(group) : Vector<S>{};
    const Vector<S> slope = factor * sum_of_runs<width, S>(dot), b = bivector_square(at, y, stride);
    const Vector<S> vector_slope = slope * sign_of(vector_square(at, y, stride)),
                    bivector_slope = slope * sign_of(b - shuffle<S, partner<S, group>>(b, b));
    unrolled<pairs>([&](auto p) {
      const Vector<S> part = (p == 0 ? slope : p < 5 ? vector_slope : bivector_slope) * at(y + p * stride);
      Vector<S> value = r * at(dy + p * stride) + (p >= 2 && p < 5 ? part : -part);
      if (add) value += at(add + p * stride);
      put(at, value, dx + p * stride);
    });
  }
}

/// f(std::integral_constant<int64_t, 2 group>) and true if registers hold whole groups.
template <class S, class F>
[[gnu::always_inline]] inline bool if_narrow(int64_t columns, int64_t group, F&& f) {
  if (columns % lanes<S>) return false;
  auto is = [&](auto width) {
    if constexpr (width() <= lanes<S>)
      if (width() == 2 * group) return f(width), true;
    return false;
  };
  return is(std::integral_constant<int64_t, 2>()) || is(std::integral_constant<int64_t, 4>()) ||
         is(std::integral_constant<int64_t, 8>()) || is(std::integral_constant<int64_t, 16>());
}

template <class X, class Y, class S = sum_type<X>>
void equi_norm(Context& ctx, int64_t T, int64_t columns, int64_t group, const X* x, S eps, Y* y, S* rstd) {
  const int64_t groups = columns / (2 * group), stride = T * columns;
  for_tokens(ctx, T, columns, [&](int64_t begin, int64_t end) {
    auto scratch = ctx.scratch<S>(3 * columns);
    S *norms = scratch.data(), *bivectors = norms + columns, *factors = bivectors + columns;
    for (int64_t t = begin; t < end; ++t) {
      const X* in = x + t * columns;
      if (if_narrow<S>(columns, group, [&](auto width) {
            norm_narrow<width()>(columns, stride, in, eps, y + t * columns, rstd + t * groups);
          }))
        continue;
      for_columns<S>(columns, [&](auto at) {
        put(at, at(in) * at(in) + magnitude(vector_square(at, in, stride)), norms);
        put(at, bivector_square(at, in, stride), bivectors);
      });
      for (int64_t k = 0; k < groups; ++k) {
        const S *n = norms + k * 2 * group, *b = bivectors + k * 2 * group;
        const S mean =
            sum_row<S>(group, [&](auto at) { return at(n) + at(n + group) + magnitude(at(b + group) - at(b)); }) /
            S(group);
        const S r = rstd[t * groups + k] = 1 / std::sqrt(mean < eps ? eps : mean);
        std::fill_n(factors + k * 2 * group, 2 * group, r);
      }
      for (int64_t p = 0; p < pairs; ++p)
        map_row(columns, y + p * stride + t * columns, [&](auto at) { return at(in + p * stride) * at(factors); });
    }
  });
}

template <class X, class Y, class S = sum_type<X>>
void equi_norm_backward(Context& ctx, int64_t T, int64_t columns, int64_t group, const Y* dy, const Y* y, const S* rstd,
                        S eps, const X* add, X* dx) {
  const int64_t groups = columns / (2 * group), stride = T * columns;
  const S at_bound = 1 / std::sqrt(eps);
  for_tokens(ctx, T, 3 * columns, [&](int64_t begin, int64_t end) {
    auto scratch = ctx.scratch<S>(5 * columns);
    S *dots = scratch.data(), *vector_signs = dots + columns, *bivectors = vector_signs + columns,
      *factors = bivectors + columns, *slopes = factors + columns;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = t * columns;
      const Y *in = y + row, *g = dy + row;
      if (if_narrow<S>(columns, group, [&](auto width) {
            norm_narrow_backward<width()>(columns, stride, g, in, rstd + t * groups, at_bound,
                                          add ? add + row : nullptr, dx + row);
          }))
        continue;
      for_columns<S>(columns, [&](auto at) {
        auto dot = at(g) * at(in);
        for (int64_t p = 1; p < pairs; ++p) dot += at(g + p * stride) * at(in + p * stride);
        put(at, dot, dots);
        put(at, sign_of(vector_square(at, in, stride)), vector_signs);
        put(at, bivector_square(at, in, stride), bivectors);
      });
      for (int64_t k = 0; k < groups; ++k) {
        const int64_t first = k * 2 * group;
        const S r = rstd[t * groups + k];
        const S dot = sum_row<S>(2 * group, [&](auto at) { return at(dots + first); });
        std::fill_n(factors + first, 2 * group, r);
        std::fill_n(slopes + first, 2 * group, r < at_bound ? r * dot / S(group) : S(0));
        for_columns<S>(group, [&](auto at) {
          S *low = bivectors + first, *high = low + group;
          const auto s = sign_of(at(high) - at(low));
          put(at, -s, low);
          put(at, s, high);
        });
      }
      unrolled<pairs>([&](auto p) {
        auto write = [&](auto&& more) {
          map_row(columns, dx + p * stride + row, [&](auto at) {
            auto slope = at(slopes) * at(in + p * stride);
            if constexpr (p >= 1 && p < 5) slope = slope * at(vector_signs);
            if constexpr (p >= 5) slope = slope * at(bivectors);
            const auto value = at(factors) * at(g + p * stride);
            if constexpr (p >= 2 && p < 5)
              return more(at, value + slope);
            else
              return more(at, value - slope);
          });
        };
        if (add)
          write([&](auto at, auto value) { return at(add + p * stride + row) + value; });
        else
          write([](auto, auto value) { return value; });
      });
    }
  });
}

/// Where a component lies, and its sign there.
struct Place {
  int place, sign;
};
std::vector<Place> places_of(Blades blades) {
  std::vector<Place> all;
  for (uint8_t blade : generators) all.push_back({place_of(blade), component(place_of(blade)).sign});
  const auto first = all.begin();
  switch (blades) {
    case Blades::scalar:
      return {first, first + 1};
    case Blades::vector:
      return {first + 1, first + 5};
    case Blades::bivector:
      return {first + 5, first + 11};
    case Blades::axial_vector:
      return {all[14], all[13], all[12], all[11]};
    case Blades::pseudoscalar:
      return {first + 15, all.end()};
    case Blades::multivector:
      return all;
  }
  return {};
}
}  // namespace cpu

namespace {
struct Sizes {
  int64_t T, C;
};

// A multivector with a whole number of channels.
Sizes check_multivector(const char* where, const char* name, const Tensor& x) {
  check(where, name, x).rank(3).compute();
  if (x.dim(0) != cpu::pairs || x.dim(2) % 2)
    fail(where, "{} has shape {}, expected 8 pairs of components and an even number of columns", name, x.shape());
  return {x.dim(1), x.dim(2) / 2};
}

// The dtype of x, or bf16 for f32.
void check_narrow(const char* where, const char* name, const Tensor& y, const Shape& shape, DType x) {
  Check c = check(where, name, y).shape(shape);
  x == DType::f32 ? c.dtype(DType::f32, DType::bf16) : c.dtype(x);
}

// f(Type<X>, Type<Y>)
template <class F>
void dispatch_narrow(const char* where, DType x, DType y, F&& f) {
  dispatch_compute(where, x, [&](auto type) {
    if constexpr (std::is_same_v<typename decltype(type)::type, float>)
      if (y == DType::bf16) return f(type, Type<bf16>{});
    f(type, type);
  });
}

template <class F>
void dispatch_gate(Gate gate, F&& f) {
  switch (gate) {
    case Gate::relu:
      return f(std::integral_constant<Gate, Gate::relu>());
    case Gate::sigmoid:
      return f(std::integral_constant<Gate, Gate::sigmoid>());
    case Gate::gelu:
      return f(std::integral_constant<Gate, Gate::gelu>());
    case Gate::silu:
      return f(std::integral_constant<Gate, Gate::silu>());
  }
}

// Channels, groups and the group's size of what a norm takes.
int64_t check_norm(const char* where, const Tensor& x, const Tensor& rstd, int64_t group, double eps) {
  const auto [T, C] = check_multivector(where, "x", x);
  if (group < 1 || C % group) fail(where, "groups of {} channels, expected a divisor of {}", group, C);
  if (!(eps > 0 && std::isfinite(eps))) fail(where, "eps is {}, expected a positive number", eps);
  check(where, "rstd", rstd).shape({T, C / group}).dtype(sum_dtype(x.dtype()));
  return C;
}
}  // namespace

int64_t count_of(Blades blades) { return static_cast<int64_t>(cpu::places_of(blades).size()); }

void embed(Context& ctx, Blades blades, const Tensor& x, Tensor& y) {
  const auto [T, C] = check_multivector("embed", "y", y);
  const int64_t P = count_of(blades);
  check("embed", "x", x).shape({T, P, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("embed", x.bytes() + y.bytes());
  dispatch_compute("embed", y.dtype(), [&, T = T, C = C](auto type) {
    using E = typename decltype(type)::type;
    std::fill_n(y.data<E>(), y.numel(), E(0.f));
    const auto places = cpu::places_of(blades);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t p = 0; p < P; ++p) {
        const auto [place, sign] = places[p];
        const E* from = x.data<E>() + (t * P + p) * C;
        E* to = y.data<E>() + (place / 2 * T + t) * 2 * C + place % 2 * C;
        for (int64_t c = 0; c < C; ++c) to[c] = sign > 0 ? from[c] : E(-from[c]);
      }
  });
}

void extract(Context& ctx, Blades blades, const Tensor& y, Tensor& x) {
  const auto [T, C] = check_multivector("extract", "y", y);
  const int64_t P = count_of(blades);
  check("extract", "x", x).shape({T, P, C}).dtype(y.dtype());
  const auto scope = ctx.profiler().scope("extract", 2. * x.bytes());
  dispatch_compute("extract", y.dtype(), [&, T = T, C = C](auto type) {
    using E = typename decltype(type)::type;
    const auto places = cpu::places_of(blades);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t p = 0; p < P; ++p) {
        const auto [place, sign] = places[p];
        const E* from = y.data<E>() + (place / 2 * T + t) * 2 * C + place % 2 * C;
        E* to = x.data<E>() + (t * P + p) * C;
        for (int64_t c = 0; c < C; ++c) to[c] = sign > 0 ? from[c] : E(-from[c]);
      }
  });
}

void grade_dropout(Context& ctx, const Draw& draw, double p, const Tensor& x, Tensor& y) {
  const char* name = "grade_dropout";
  const auto [T, C] = check_multivector(name, "x", x);
  check(name, "y", y).like(x);
  if (!(p >= 0 && p < 1)) fail(name, "p is {}, expected [0, 1)", p);
  if (draw.recorded && static_cast<int64_t>(draw.recorded->size()) < 5 * T * C)
    fail(name, "{} recorded numbers, expected {}", draw.recorded->size(), 5 * T * C);
  const auto scope = ctx.profiler().scope(name, x.bytes() + y.bytes(), 1. * x.numel());
  dispatch_compute(name, x.dtype(), [&, T = T, C = C](auto type) {
    using E = typename decltype(type)::type;
    using S = sum_type<E>;
    const S scale = static_cast<S>(1 / (1 - p));
    cpu::for_tokens(ctx, T, 2 * C, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t c = 0; c < C; ++c) {
          S factors[5];
          for (int64_t k = 0; k < 5; ++k) factors[k] = draw.uniform((t * C + c) * 5 + k) >= p ? scale : S(0);
          for (int i = 0; i < cpu::components; ++i) {
            const int64_t at = (i / 2 * T + t) * 2 * C + i % 2 * C + c;
            const S factor = factors[cpu::grade(cpu::component(i).blade)];
            y.data<E>()[at] = factor == 0 ? E(0.f) : E(S(x.data<E>()[at]) * factor);
          }
        }
    });
  });
}

void geometric_product(Context& ctx, const Tensor& lr, Tensor& y) {
  const char* name = "geometric_product";
  const auto [T, twice] = check_multivector(name, "lr", lr);
  if (twice % 2) fail(name, "lr has {} columns, expected a multiple of 4", 2 * twice);
  const int64_t C = twice / 2;
  check_narrow(name, "y", y, {cpu::pairs, T, 2 * C}, lr.dtype());
  const auto scope = ctx.profiler().scope(name, lr.bytes() + y.bytes(), 512. * T * C);
  dispatch_narrow(name, lr.dtype(), y.dtype(), [&, T = T](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    cpu::geometric_product(ctx, T, C, lr.data<X>(), y.data<Y>());
  });
}

void geometric_product_backward(Context& ctx, const Tensor& dy, const Tensor& lr, Tensor& dlr) {
  const char* name = "geometric_product_backward";
  const auto [T, twice] = check_multivector(name, "lr", lr);
  if (twice % 2) fail(name, "lr has {} columns, expected a multiple of 4", 2 * twice);
  const int64_t C = twice / 2;
  check_narrow(name, "dy", dy, {cpu::pairs, T, 2 * C}, lr.dtype());
  check(name, "dlr", dlr).like(lr);
  const auto scope = ctx.profiler().scope(name, 2. * lr.bytes() + dy.bytes(), 1024. * T * C);
  dispatch_narrow(name, lr.dtype(), dy.dtype(), [&, T = T](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    cpu::geometric_product_backward(ctx, T, C, dy.data<Y>(), lr.data<X>(), dlr.data<X>());
  });
}

void gated(Context& ctx, Gate f, const Tensor& x, Tensor& y) {
  const auto [T, C] = check_multivector("gated", "x", x);
  check_narrow("gated", "y", y, x.shape(), x.dtype());
  const auto scope = ctx.profiler().scope("gated", x.bytes() + y.bytes(), 17. * T * C);
  dispatch_narrow("gated", x.dtype(), y.dtype(), [&, T = T, C = C](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    dispatch_gate(f, [&](auto gate) { cpu::gated<gate()>(ctx, T, C, x.data<X>(), y.data<Y>()); });
  });
}

void gated_backward(Context& ctx, Gate f, const Tensor& dy, const Tensor& x, Tensor& dx) {
  const auto [T, C] = check_multivector("gated_backward", "x", x);
  check_narrow("gated_backward", "dy", dy, x.shape(), x.dtype());
  check("gated_backward", "dx", dx).like(x);
  const auto scope = ctx.profiler().scope("gated_backward", 2. * x.bytes() + dy.bytes(), 52. * T * C);
  dispatch_narrow("gated_backward", x.dtype(), dy.dtype(), [&, T = T, C = C](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    dispatch_gate(f,
                  [&](auto gate) { cpu::gated_backward<gate()>(ctx, T, C, dy.data<Y>(), x.data<X>(), dx.data<X>()); });
  });
}

void equi_norm(Context& ctx, const Tensor& x, int64_t group, double eps, Tensor& y, Tensor& rstd) {
  const int64_t C = check_norm("equi_norm", x, rstd, group, eps);
  check_narrow("equi_norm", "y", y, x.shape(), x.dtype());
  const auto scope = ctx.profiler().scope("equi_norm", x.bytes() + y.bytes(), 3. * x.numel());
  dispatch_narrow("equi_norm", x.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using S = sum_type<X>;
    cpu::equi_norm(ctx, x.dim(1), 2 * C, group, x.data<X>(), S(eps), y.data<Y>(), rstd.data<S>());
  });
}

void equi_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, double eps,
                        const Tensor& add, Tensor& dx) {
  const char* name = "equi_norm_backward";
  check(name, "rstd", rstd).rank(2);
  const int64_t C = check_multivector(name, "dx", dx).C, group = rstd.dim(1) ? C / rstd.dim(1) : 0;
  check_norm(name, dx, rstd, group, eps);
  check_narrow(name, "y", y, dx.shape(), dx.dtype());
  check(name, "dy", dy).like(y);
  if (add.defined()) check(name, "add", add).like(dx);
  const auto scope = ctx.profiler().scope(name, 2. * y.bytes() + dx.bytes() + add.bytes(), 7. * dx.numel());
  dispatch_narrow(name, dx.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using S = sum_type<X>;
    cpu::equi_norm_backward(ctx, dx.dim(1), 2 * C, group, dy.data<Y>(), y.data<Y>(), rstd.data<S>(), S(eps),
                            add.defined() ? add.data<X>() : nullptr, dx.data<X>());
  });
}

}  // namespace lightcone::kernels

#include <cmath>

#include "kernels/geometric_algebra.h"
#include "kernels/geometric_algebra_columns.h"

// The norm of multivectors (equi_norm).
namespace lightcone::kernels {

namespace cpu {

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

/// The squares of a token's components, column by column; `stride` elements from pair to pair. The two vectors of a
/// pair of halves have squares of opposite sign, which does not matter; bivectors have - in half 0 and + in half 1.
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

}  // namespace cpu

namespace cuda {  // geometric_algebra_norm.cu
void equi_norm(Context& ctx, const Tensor& x, int64_t group, double eps, Tensor& y, Tensor& rstd);
void equi_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, double eps,
                        const Tensor& add, Tensor& dx);
}  // namespace cuda

namespace {
// Channels, groups and the group's size of what a norm takes.
int64_t check_norm(const Context& ctx, const char* where, const Tensor& x, const Tensor& rstd, int64_t group,
                   double eps) {
  const auto [T, C] = check_multivector(ctx, where, "x", x);
  if (group < 1 || C % group) fail(where, "groups of {} channels, expected a divisor of {}", group, C);
  if (!(eps > 0 && std::isfinite(eps))) fail(where, "eps is {}, expected a positive number", eps);
  check(ctx, where, "rstd", rstd).shape({T, C / group}).dtype(sum_dtype(x.dtype()));
  return C;
}
}  // namespace

void equi_norm(Context& ctx, const Tensor& x, int64_t group, double eps, Tensor& y, Tensor& rstd) {
  const int64_t C = check_norm(ctx, "equi_norm", x, rstd, group, eps);
  check_narrow(ctx, "equi_norm", "y", y, x.shape(), x.dtype());
  const auto scope = ctx.profiler().scope("equi_norm", x.bytes() + y.bytes(), 3. * x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::equi_norm(ctx, x, group, eps, y, rstd);
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
  check(ctx, name, "rstd", rstd).rank(2);
  const int64_t C = check_multivector(ctx, name, "dx", dx).C, group = rstd.dim(1) ? C / rstd.dim(1) : 0;
  check_norm(ctx, name, dx, rstd, group, eps);
  check_narrow(ctx, name, "y", y, dx.shape(), dx.dtype());
  check(ctx, name, "dy", dy).like(y);
  if (add.defined()) check(ctx, name, "add", add).like(dx);
  const auto scope = ctx.profiler().scope(name, 2. * y.bytes() + dx.bytes() + add.bytes(), 7. * dx.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::equi_norm_backward(ctx, dy, y, rstd, eps, add, dx);
  dispatch_narrow(name, dx.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using S = sum_type<X>;
    cpu::equi_norm_backward(ctx, dx.dim(1), 2 * C, group, dy.data<Y>(), y.data<Y>(), rstd.data<S>(), S(eps),
                            add.defined() ? add.data<X>() : nullptr, dx.data<X>());
  });
}

}  // namespace lightcone::kernels

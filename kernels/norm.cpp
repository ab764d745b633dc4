#include "kernels/norm.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"

namespace lightcone::kernels {

namespace cpu {
// Four rows are taken at a time, so that their sums need not wait for each other. Where fewer are left, the last one
// stands for those that are missing: what a row gets does not depend on the others.
constexpr int together = 4;

template <class T>
struct Rows {
  const T* row[together];
  Rows(const T* first, int64_t count, int64_t cols) {
    for (int r = 0; r < together; ++r) row[r] = first + std::min<int64_t>(r, count - 1) * cols;
  }
  auto operator()(int r, int64_t c) const { return sum_type<T>(row[r][c]); }
};

template <class Sum>
struct Means {
  Sum of[together];
};

// of[r] = mean over c of term(r, c)
template <class Sum, class F>
Means<Sum> means(int64_t cols, F&& term) {
  Sum s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (int64_t c = 0; c < cols; ++c) {
    s0 += term(0, c);
    s1 += term(1, c);
    s2 += term(2, c);
    s3 += term(3, c);
  }
  return {s0 / cols, s1 / cols, s2 / cols, s3 / cols};
}

// f(first row, count) for groups of up to four rows, on all threads.
template <class F>
void row_groups(Context& ctx, int64_t rows, int64_t cols, F&& f) {
  parallel_chunks(ctx, rows, together * grain_for(together * cols), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t += together) f(t, std::min<int64_t>(together, end - t));
  });
}

// out[c] = value(c), plus the row of `add` if there is one.
template <class T, class F>
void store_row(int64_t cols, const T* add, T* out, F&& value) {
  using Sum = sum_type<T>;
  if (add)
    for (int64_t c = 0; c < cols; ++c) out[c] = T(Sum(add[c]) + value(c));
  else
    for (int64_t c = 0; c < cols; ++c) out[c] = T(value(c));
}

template <class T, class Sum = sum_type<T>>
void layer_norm(Context& ctx, int64_t rows, int64_t cols, const T* x, Sum eps, T* y, Sum* rstd) {
  row_groups(ctx, rows, cols, [&](int64_t t, int64_t count) {
    const Rows<T> in(x + t * cols, count, cols);
    const auto mean = means<Sum>(cols, [&](int r, int64_t c) { return in(r, c); });
    // Two passes: the one-pass variance cancels for log-energies, whose mean is far from zero.
    const auto variance =
        means<Sum>(cols, [&](int r, int64_t c) { return (in(r, c) - mean.of[r]) * (in(r, c) - mean.of[r]); });
    for (int r = 0; r < count; ++r) {
      const Sum m = mean.of[r], scale = 1 / std::sqrt(variance.of[r] + eps);
      store_row<T>(cols, nullptr, y + (t + r) * cols, [&](int64_t c) { return (in(r, c) - m) * scale; });
      rstd[t + r] = scale;
    }
  });
}

template <class T, class Sum = sum_type<T>>
void layer_norm_backward(Context& ctx, int64_t rows, int64_t cols, const T* dy, const T* y, const Sum* rstd,
                         const T* add, T* dx) {
  row_groups(ctx, rows, cols, [&](int64_t t, int64_t count) {
    const Rows<T> g(dy + t * cols, count, cols), n(y + t * cols, count, cols);
    const auto mean_g = means<Sum>(cols, [&](int r, int64_t c) { return g(r, c); });
    const auto mean_gn = means<Sum>(cols, [&](int r, int64_t c) { return g(r, c) * n(r, c); });
    for (int r = 0; r < count; ++r) {
      const Sum scale = rstd[t + r], m = mean_g.of[r], along = mean_gn.of[r];
      store_row(cols, add ? add + (t + r) * cols : nullptr, dx + (t + r) * cols,
                [&](int64_t c) { return scale * (g(r, c) - m - n(r, c) * along); });
    }
  });
}

template <class T, class Sum = sum_type<T>>
void rms_norm(Context& ctx, int64_t rows, int64_t cols, const T* x, Sum eps, T* y, Sum* rstd) {
  row_groups(ctx, rows, cols, [&](int64_t t, int64_t count) {
    const Rows<T> in(x + t * cols, count, cols);
    const auto square = means<Sum>(cols, [&](int r, int64_t c) { return in(r, c) * in(r, c); });
    for (int r = 0; r < count; ++r) {
      const Sum scale = 1 / std::sqrt(square.of[r] + eps);
      store_row<T>(cols, nullptr, y + (t + r) * cols, [&](int64_t c) { return in(r, c) * scale; });
      rstd[t + r] = scale;
    }
  });
}

template <class T, class Sum = sum_type<T>>
void rms_norm_backward(Context& ctx, int64_t rows, int64_t cols, const T* dy, const T* y, const Sum* rstd, const T* add,
                       T* dx) {
  row_groups(ctx, rows, cols, [&](int64_t t, int64_t count) {
    const Rows<T> g(dy + t * cols, count, cols), n(y + t * cols, count, cols);
    const auto mean_gn = means<Sum>(cols, [&](int r, int64_t c) { return g(r, c) * n(r, c); });
    for (int r = 0; r < count; ++r) {
      const Sum scale = rstd[t + r], along = mean_gn.of[r];
      store_row(cols, add ? add + (t + r) * cols : nullptr, dx + (t + r) * cols,
                [&](int64_t c) { return scale * (g(r, c) - n(r, c) * along); });
    }
  });
}
}  // namespace cpu

void layer_norm(Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd) {
  check("layer_norm", "x", x).rank(2).compute();
  const int64_t T = x.dim(0), C = x.dim(1);
  if (C == 0) throw Error("layer_norm: x has 0 columns");
  check("layer_norm", "y", y).like(x);
  check("layer_norm", "rstd", rstd).shape({T}).dtype(sum_dtype(x.dtype()));
  const auto scope = ctx.profiler().scope("layer_norm", 2. * x.bytes(), 7. * x.numel());
  dispatch_compute("layer_norm", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using Sum = sum_type<E>;
    cpu::layer_norm<E>(ctx, T, C, x.data<E>(), static_cast<Sum>(eps), y.data<E>(), rstd.data<Sum>());
  });
}

void layer_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, const Tensor& add,
                         Tensor& dx) {
  const char* where = "layer_norm_backward";
  check(where, "y", y).rank(2).compute();
  const int64_t T = y.dim(0), C = y.dim(1);
  check(where, "dy", dy).like(y);
  check(where, "rstd", rstd).shape({T}).dtype(sum_dtype(y.dtype()));
  if (add.defined()) check(where, "add", add).like(y);
  check(where, "dx", dx).like(y);
  const auto scope = ctx.profiler().scope(where, 3. * y.bytes() + add.bytes(), 8. * y.numel());
  dispatch_compute(where, y.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using Sum = sum_type<E>;
    cpu::layer_norm_backward<E>(ctx, T, C, dy.data<E>(), y.data<E>(), rstd.data<Sum>(),
                                add.defined() ? add.data<E>() : nullptr, dx.data<E>());
  });
}

void rms_norm(Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd) {
  check("rms_norm", "x", x).rank(2).compute();
  const int64_t T = x.dim(0), C = x.dim(1);
  if (C == 0) throw Error("rms_norm: x has 0 columns");
  check("rms_norm", "y", y).like(x);
  check("rms_norm", "rstd", rstd).shape({T}).dtype(sum_dtype(x.dtype()));
  const auto scope = ctx.profiler().scope("rms_norm", 2. * x.bytes(), 3. * x.numel());
  dispatch_compute("rms_norm", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using Sum = sum_type<E>;
    cpu::rms_norm<E>(ctx, T, C, x.data<E>(), static_cast<Sum>(eps), y.data<E>(), rstd.data<Sum>());
  });
}

void rms_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, const Tensor& add,
                       Tensor& dx) {
  const char* where = "rms_norm_backward";
  check(where, "y", y).rank(2).compute();
  const int64_t T = y.dim(0), C = y.dim(1);
  check(where, "dy", dy).like(y);
  check(where, "rstd", rstd).shape({T}).dtype(sum_dtype(y.dtype()));
  if (add.defined()) check(where, "add", add).like(y);
  check(where, "dx", dx).like(y);
  const auto scope = ctx.profiler().scope(where, 3. * y.bytes() + add.bytes(), 5. * y.numel());
  dispatch_compute(where, y.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using Sum = sum_type<E>;
    cpu::rms_norm_backward<E>(ctx, T, C, dy.data<E>(), y.data<E>(), rstd.data<Sum>(),
                              add.defined() ? add.data<E>() : nullptr, dx.data<E>());
  });
}

}  // namespace lightcone::kernels

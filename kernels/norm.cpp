#include "kernels/norm.h"

#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"

namespace lightcone::kernels {

namespace cpu {
template <class T, class Sum = sum_type<T>>
void layer_norm(Context& ctx, int64_t rows, int64_t cols, const T* x, Sum eps, T* y, Sum* rstd) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T* in = x + t * cols;
    T* out = y + t * cols;
    Sum m = 0, v = 0;
#pragma omp simd reduction(+ : m)
    for (int64_t c = 0; c < cols; ++c) m += Sum(in[c]);
    m /= cols;
    // Two passes: the one-pass variance cancels for log-energies, whose mean is far from zero.
#pragma omp simd reduction(+ : v)
    for (int64_t c = 0; c < cols; ++c) v += (Sum(in[c]) - m) * (Sum(in[c]) - m);
    const Sum r = 1 / std::sqrt(v / cols + eps);
    for (int64_t c = 0; c < cols; ++c) out[c] = T((Sum(in[c]) - m) * r);
    rstd[t] = r;
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
void layer_norm_backward(Context& ctx, int64_t rows, int64_t cols, const T* dy, const T* y, const Sum* rstd,
                         const T* add, T* dx) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T *g = dy + t * cols, *n = y + t * cols;
    const Sum r = rstd[t];
    Sum mean_g = 0, mean_gn = 0;
#pragma omp simd reduction(+ : mean_g, mean_gn)
    for (int64_t c = 0; c < cols; ++c) {
      mean_g += Sum(g[c]);
      mean_gn += Sum(g[c]) * Sum(n[c]);
    }
    mean_g /= cols;
    mean_gn /= cols;
    store_row(cols, add ? add + t * cols : nullptr, dx + t * cols,
              [&](int64_t c) { return r * (Sum(g[c]) - mean_g - Sum(n[c]) * mean_gn); });
  });
}

template <class T, class Sum = sum_type<T>>
void rms_norm(Context& ctx, int64_t rows, int64_t cols, const T* x, Sum eps, T* y, Sum* rstd) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T* in = x + t * cols;
    T* out = y + t * cols;
    Sum square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t c = 0; c < cols; ++c) square += Sum(in[c]) * Sum(in[c]);
    const Sum r = 1 / std::sqrt(square / cols + eps);
    for (int64_t c = 0; c < cols; ++c) out[c] = T(Sum(in[c]) * r);
    rstd[t] = r;
  });
}

template <class T, class Sum = sum_type<T>>
void rms_norm_backward(Context& ctx, int64_t rows, int64_t cols, const T* dy, const T* y, const Sum* rstd, const T* add,
                       T* dx) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T *g = dy + t * cols, *n = y + t * cols;
    const Sum r = rstd[t];
    Sum mean_gn = 0;
#pragma omp simd reduction(+ : mean_gn)
    for (int64_t c = 0; c < cols; ++c) mean_gn += Sum(g[c]) * Sum(n[c]);
    mean_gn /= cols;
    store_row(cols, add ? add + t * cols : nullptr, dx + t * cols,
              [&](int64_t c) { return r * (Sum(g[c]) - Sum(n[c]) * mean_gn); });
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

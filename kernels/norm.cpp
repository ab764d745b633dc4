#include "kernels/norm.h"

#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"

namespace lightcone::kernels {

namespace cpu {
template <class T, class Sum = sum_type<T>>
void layer_norm(Context& ctx, int64_t rows, int64_t cols, const T* x, Sum eps, T* y, Sum* mean, Sum* rstd) {
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
    mean[t] = m;
    rstd[t] = r;
  });
}

template <class T, class Sum = sum_type<T>>
void layer_norm_backward(Context& ctx, int64_t rows, int64_t cols, const T* dy, const T* x, const Sum* mean,
                         const Sum* rstd, T* dx) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T *g = dy + t * cols, *in = x + t * cols;
    T* out = dx + t * cols;
    const Sum m = mean[t], r = rstd[t];
    Sum mean_g = 0, mean_gn = 0;
#pragma omp simd reduction(+ : mean_g, mean_gn)
    for (int64_t c = 0; c < cols; ++c) {
      mean_g += Sum(g[c]);
      mean_gn += Sum(g[c]) * (Sum(in[c]) - m) * r;
    }
    mean_g /= cols;
    mean_gn /= cols;
    for (int64_t c = 0; c < cols; ++c) out[c] = T(r * (Sum(g[c]) - mean_g - (Sum(in[c]) - m) * r * mean_gn));
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
void rms_norm_backward(Context& ctx, int64_t rows, int64_t cols, const T* dy, const T* x, const Sum* rstd, T* dx) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T *g = dy + t * cols, *in = x + t * cols;
    T* out = dx + t * cols;
    const Sum r = rstd[t];
    Sum mean_gn = 0;
#pragma omp simd reduction(+ : mean_gn)
    for (int64_t c = 0; c < cols; ++c) mean_gn += Sum(g[c]) * Sum(in[c]) * r;
    mean_gn /= cols;
    for (int64_t c = 0; c < cols; ++c) out[c] = T(r * (Sum(g[c]) - Sum(in[c]) * r * mean_gn));
  });
}
}  // namespace cpu

void layer_norm(Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& mean, Tensor& rstd) {
  check("layer_norm", "x", x).rank(2).compute();
  const int64_t T = x.dim(0), C = x.dim(1);
  if (C == 0) throw Error("layer_norm: x has 0 columns");
  check("layer_norm", "y", y).like(x);
  check("layer_norm", "mean", mean).shape({T}).dtype(sum_dtype(x.dtype()));
  check("layer_norm", "rstd", rstd).like(mean);
  const auto scope = ctx.profiler().scope("layer_norm", 2. * x.bytes(), 7. * x.numel());
  dispatch_compute("layer_norm", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using Sum = sum_type<E>;
    cpu::layer_norm<E>(ctx, T, C, x.data<E>(), static_cast<Sum>(eps), y.data<E>(), mean.data<Sum>(), rstd.data<Sum>());
  });
}

void layer_norm_backward(Context& ctx, const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd,
                         Tensor& dx) {
  check("layer_norm_backward", "x", x).rank(2).compute();
  const int64_t T = x.dim(0), C = x.dim(1);
  check("layer_norm_backward", "dy", dy).like(x);
  check("layer_norm_backward", "mean", mean).shape({T}).dtype(sum_dtype(x.dtype()));
  check("layer_norm_backward", "rstd", rstd).like(mean);
  check("layer_norm_backward", "dx", dx).like(x);
  const auto scope = ctx.profiler().scope("layer_norm_backward", 3. * x.bytes(), 12. * x.numel());
  dispatch_compute("layer_norm_backward", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using Sum = sum_type<E>;
    cpu::layer_norm_backward<E>(ctx, T, C, dy.data<E>(), x.data<E>(), mean.data<Sum>(), rstd.data<Sum>(), dx.data<E>());
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

void rms_norm_backward(Context& ctx, const Tensor& dy, const Tensor& x, const Tensor& rstd, Tensor& dx) {
  check("rms_norm_backward", "x", x).rank(2).compute();
  const int64_t T = x.dim(0), C = x.dim(1);
  check("rms_norm_backward", "dy", dy).like(x);
  check("rms_norm_backward", "rstd", rstd).shape({T}).dtype(sum_dtype(x.dtype()));
  check("rms_norm_backward", "dx", dx).like(x);
  const auto scope = ctx.profiler().scope("rms_norm_backward", 3. * x.bytes(), 7. * x.numel());
  dispatch_compute("rms_norm_backward", x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    using Sum = sum_type<E>;
    cpu::rms_norm_backward<E>(ctx, T, C, dy.data<E>(), x.data<E>(), rstd.data<Sum>(), dx.data<E>());
  });
}

}  // namespace lightcone::kernels

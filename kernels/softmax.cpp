#include "kernels/softmax.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/vector_math.h"

namespace lightcone::kernels {

namespace cpu {
template <bool log, class T, class Sum = sum_type<T>>
void softmax(Context& ctx, int64_t rows, int64_t cols, const T* x, T* y) {
  parallel_chunks(ctx, rows, grain_for(cols), [&](int64_t, int64_t begin, int64_t end) {
    // A bf16 row needs a place where its exponentials are not rounded yet.
    auto row = ctx.scratch<Sum>(cols);
    Sum* e = row.data();
    for (int64_t t = begin; t < end; ++t) {
      const T* in = x + t * cols;
      T* out = y + t * cols;
      Sum max = -INFINITY, sum = 0;
#pragma omp simd reduction(max : max)
      for (int64_t c = 0; c < cols; ++c) max = std::max(max, Sum(in[c]));
      vector_math::map(
          cols, e, [max](Sum v) { return vector_math::exp(v - max); }, in);
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < cols; ++c) sum += e[c];
      if constexpr (log) {
        const Sum shift = std::log(sum);
        for (int64_t c = 0; c < cols; ++c) out[c] = T(Sum(in[c]) - max - shift);
      } else {
        for (int64_t c = 0; c < cols; ++c) out[c] = T(e[c] / sum);
      }
    }
  });
}

template <bool log, class T, class Sum = sum_type<T>>
void softmax_backward(Context& ctx, int64_t rows, int64_t cols, const T* dy, const T* y, T* dx) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T *g = dy + t * cols, *p = y + t * cols;
    T* out = dx + t * cols;
    Sum sum = 0;
    if constexpr (log) {
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < cols; ++c) sum += Sum(g[c]);
      vector_math::map(
          cols, out, [sum](Sum g, Sum p) { return g - vector_math::exp(p) * sum; }, g, p);
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < cols; ++c) sum += Sum(p[c]) * Sum(g[c]);
      for (int64_t c = 0; c < cols; ++c) out[c] = T(Sum(p[c]) * (Sum(g[c]) - sum));
    }
  });
}
}  // namespace cpu

namespace cuda {  // softmax.cu
void softmax(Context& ctx, const char* where, bool log, const Tensor& x, Tensor& y);
void softmax_backward(Context& ctx, const char* where, bool log, const Tensor& dy, const Tensor& y, Tensor& dx);
}  // namespace cuda

namespace {
template <bool log>
void forward(const char* name, Context& ctx, const Tensor& x, Tensor& y) {
  check(ctx, name, "x", x).rank(2).compute();
  if (x.dim(1) == 0) fail(name, "x has 0 columns");
  check(ctx, name, "y", y).like(x);
  const auto scope = ctx.profiler().scope(name, 2. * x.bytes(), 5. * x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::softmax(ctx, name, log, x, y);
  dispatch_compute(name, x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::softmax<log, E>(ctx, x.dim(0), x.dim(1), x.data<E>(), y.data<E>());
  });
}

template <bool log>
void backward(const char* name, Context& ctx, const Tensor& dy, const Tensor& y, Tensor& dx) {
  check(ctx, name, "y", y).rank(2).compute();
  if (y.dim(1) == 0) fail(name, "y has 0 columns");
  check(ctx, name, "dy", dy).like(y);
  check(ctx, name, "dx", dx).like(y);
  const auto scope = ctx.profiler().scope(name, 3. * y.bytes(), 4. * y.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::softmax_backward(ctx, name, log, dy, y, dx);
  dispatch_compute(name, y.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    cpu::softmax_backward<log, E>(ctx, y.dim(0), y.dim(1), dy.data<E>(), y.data<E>(), dx.data<E>());
  });
}
}  // namespace

void softmax(Context& ctx, const Tensor& x, Tensor& y) { forward<false>("softmax", ctx, x, y); }
void log_softmax(Context& ctx, const Tensor& x, Tensor& y) { forward<true>("log_softmax", ctx, x, y); }
void softmax_backward(Context& ctx, const Tensor& dy, const Tensor& y, Tensor& dx) {
  backward<false>("softmax_backward", ctx, dy, y, dx);
}
void log_softmax_backward(Context& ctx, const Tensor& dy, const Tensor& y, Tensor& dx) {
  backward<true>("log_softmax_backward", ctx, dy, y, dx);
}

}  // namespace lightcone::kernels

#include "kernels/reduce.h"

#include <algorithm>
#include <limits>

#include "engine/check.h"
#include "engine/threads.h"

namespace lightcone::kernels {

namespace cpu {
constexpr int64_t grain = 16384;

// In 64 sums side by side, then of their halves: as accurate at every level of optimisation, where a loop that is not
// vectorised would lose a digit per factor of ten in n.
template <class T, class Sum = sum_type<T>>
Sum sum_of(int64_t n, const T* x) {
  constexpr int64_t lanes = 64;
  Sum sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t l = 0; l < lanes; ++l) sums[l] += Sum(x[i + l]);
  for (int64_t l = 0; i + l < n; ++l) sums[l] += Sum(x[i + l]);
  for (int64_t half = lanes / 2; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

template <class T, class Sum = sum_type<T>>
void sum_last(Context& ctx, int64_t rows, int64_t cols, const T* x, Sum scale, T* y) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) { y[t] = T(scale * sum_of(cols, x + t * cols)); });
}

template <class T, class Sum = sum_type<T>>
void sum_leading(Context& ctx, int64_t rows, int64_t cols, const T* x, double scale, T* y) {
  constexpr int64_t block = 256, stripe = 1024;
  const int64_t blocks = (rows + block - 1) / block, stripes = (cols + stripe - 1) / stripe;
  auto partial = ctx.scratch<Sum>(blocks * cols);
  parallel_chunks(ctx, blocks * stripes, 1, [&](int64_t chunk, int64_t, int64_t) {
    const int64_t b = chunk / stripes, first = chunk % stripes * stripe, width = std::min(stripe, cols - first);
    Sum sums[stripe] = {};
    for (int64_t t = b * block; t < std::min(rows, (b + 1) * block); ++t)
      for (int64_t c = 0; c < width; ++c) sums[c] += Sum(x[t * cols + first + c]);
    std::copy_n(sums, width, partial.data() + b * cols + first);
  });
  parallel_chunks(ctx, cols, stripe, [&](int64_t, int64_t begin, int64_t end) {
    double sums[stripe] = {};
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t c = begin; c < end; ++c) sums[c - begin] += partial[b * cols + c];
    for (int64_t c = begin; c < end; ++c) y[c] = T(scale * sums[c - begin]);
  });
}

template <class T>
double sum_all(Context& ctx, int64_t n, const T* x) {
  return parallel_sum<double>(
      ctx, n, grain, [&](int64_t, int64_t begin, int64_t end) { return double(sum_of(end - begin, x + begin)); });
}

// dx[t, c] = scale dy[t] (along columns) or scale dy[c].
template <class T, class Sum = sum_type<T>>
void spread(Context& ctx, int64_t rows, int64_t cols, const T* dy, bool along_columns, Sum scale, T* dx) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    T* out = dx + t * cols;
    if (along_columns)
      std::fill_n(out, cols, T(scale * Sum(dy[t])));
    else
      for (int64_t c = 0; c < cols; ++c) out[c] = T(scale * Sum(dy[c]));
  });
}

template <class T, class Sum = sum_type<T>>
void max_last(Context& ctx, int64_t rows, int64_t cols, const T* x, T* y) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const T* in = x + t * cols;
    Sum largest = Sum(in[0]);
    bool nan = largest != largest;
    for (int64_t c = 1; c < cols; ++c) {
      const Sum v = Sum(in[c]);
      nan |= v != v;
      largest = v > largest ? v : largest;
    }
    y[t] = nan ? T(std::numeric_limits<Sum>::quiet_NaN()) : T(largest);
  });
}
}  // namespace cpu

namespace cuda {  // reduce.cu
void sum(Context& ctx, const Tensor& x, Over over, double scale, Tensor& y);
void sum_backward(Context& ctx, const Tensor& dy, Over over, double scale, Tensor& dx);
void max_last(Context& ctx, const Tensor& x, Tensor& y);
double sum_of_squares(Context& ctx, const Tensor& x);
bool all_finite(Context& ctx, const Tensor& x);
}  // namespace cuda

Shape shape_of_sum(const Shape& x, Over over) {
  if (over == Over::all) return {1};
  if (x.rank() < 2) fail("sum", "x has shape {}, expected at least 2 axes", x);
  Shape y;
  for (int axis = over == Over::leading; axis < x.rank() - (over == Over::last); ++axis) y.append(x[axis]);
  return y;
}

int64_t count_of_sum(const Shape& x, Over over) {
  return over == Over::all ? x.numel() : x[over == Over::leading ? 0 : -1];
}

void sum(Context& ctx, const Tensor& x, Over over, double scale, Tensor& y) {
  check(ctx, "sum", "x", x).compute();
  check(ctx, "sum", "y", y).shape(shape_of_sum(x.shape(), over)).dtype(x.dtype());
  const auto scope = ctx.profiler().scope("sum", x.bytes() + y.bytes(), x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::sum(ctx, x, over, scale, y);
  dispatch_compute("sum", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t n = y.numel(), count = count_of_sum(x.shape(), over);
    if (over == Over::last) cpu::sum_last<T>(ctx, n, count, x.data<T>(), static_cast<sum_type<T>>(scale), y.data<T>());
    if (over == Over::leading) cpu::sum_leading<T>(ctx, count, n, x.data<T>(), scale, y.data<T>());
    if (over == Over::all) *y.data<T>() = T(scale * cpu::sum_all<T>(ctx, count, x.data<T>()));
  });
}

void sum_backward(Context& ctx, const Tensor& dy, Over over, double scale, Tensor& dx) {
  check(ctx, "sum_backward", "dx", dx).compute();
  check(ctx, "sum_backward", "dy", dy).shape(shape_of_sum(dx.shape(), over)).dtype(dx.dtype());
  const auto scope = ctx.profiler().scope("sum_backward", dx.bytes() + dy.bytes(), dx.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::sum_backward(ctx, dy, over, scale, dx);
  dispatch_compute("sum_backward", dx.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto factor = static_cast<sum_type<T>>(scale);
    const int64_t n = dy.numel(), count = count_of_sum(dx.shape(), over);
    if (over == Over::last) cpu::spread<T>(ctx, n, count, dy.data<T>(), true, factor, dx.data<T>());
    if (over == Over::leading) cpu::spread<T>(ctx, count, n, dy.data<T>(), false, factor, dx.data<T>());
    if (over == Over::all) cpu::spread<T>(ctx, count, 1, dy.data<T>(), false, factor, dx.data<T>());
  });
}

void max_last(Context& ctx, const Tensor& x, Tensor& y) {
  check(ctx, "max_last", "x", x).compute();
  check(ctx, "max_last", "y", y).shape(shape_of_sum(x.shape(), Over::last)).dtype(x.dtype());
  if (x.dim(-1) == 0) fail("max_last", "x has shape {}; there is no largest of 0 elements", x.shape());
  const auto scope = ctx.profiler().scope("max_last", x.bytes() + y.bytes(), x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::max_last(ctx, x, y);
  dispatch_compute("max_last", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    cpu::max_last<T>(ctx, y.numel(), x.dim(-1), x.data<T>(), y.data<T>());
  });
}

double sum_of_squares(Context& ctx, const Tensor& x) {
  check(ctx, "sum_of_squares", "x", x).compute();
  const auto scope = ctx.profiler().scope("sum_of_squares", x.bytes(), 2. * x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::sum_of_squares(ctx, x);
  return dispatch_compute("sum_of_squares", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T* in = x.data<T>();
    return parallel_sum<double>(ctx, x.numel(), cpu::grain, [&](int64_t, int64_t begin, int64_t end) {
      double s = 0;
#pragma omp simd reduction(+ : s)
      for (int64_t i = begin; i < end; ++i) s += double(sum_type<T>(in[i])) * double(sum_type<T>(in[i]));
      return s;
    });
  });
}

bool all_finite(Context& ctx, const Tensor& x) {
  check(ctx, "all_finite", "x", x).compute();
  const auto scope = ctx.profiler().scope("all_finite", x.bytes());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::all_finite(ctx, x);
  return dispatch_compute("all_finite", x.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T* in = x.data<T>();
    return parallel_sum<int64_t>(ctx, x.numel(), cpu::grain, [&](int64_t, int64_t begin, int64_t end) {
             int64_t bad = 0;
             // v - v is 0 for finite v, else NaN.
             for (int64_t i = begin; i < end; ++i) bad += !(sum_type<T>(in[i]) - sum_type<T>(in[i]) == 0);
             return bad;
           }) == 0;
  });
}

}  // namespace lightcone::kernels

#include "kernels/device.cuh"
#include "kernels/vector_math.h"

namespace lightcone::kernels {

namespace {

// The owners of a Row (a warp up to 1024 columns, a block beyond) own one row each; those past the last row leave
// together. The row is read again from the first-level cache for the sum and for the result. y may be x: an element is
// read and written by one thread, after the sums.
template <bool log, class Row, class T>
__global__ void softmax_kernel(Row row, int64_t rows, int64_t cols, const T* x, T* y) {
  using Sum = sum_type<T>;
  const int64_t t = row.index();
  if (t >= rows) return;
  const T* in = x + t * cols;
  // A NaN may be lost here, but not from the sum.
  const Sum max = row.reduce(
      cols, -Sum(INFINITY), [](Sum a, Sum b) { return a > b ? a : b; }, [](Sum v) { return v; }, in);
  const Sum sum = row.template sum<Sum>(
      cols, [=](Sum v) { return vector_math::exp(v - max); }, in);
  if constexpr (log) {
    const Sum shift = vector_math::log(sum);
    row.map(
        cols, y + t * cols, [=](Sum v) { return v - max - shift; }, in);
  } else {
    const Sum scale = 1 / sum;
    row.map(
        cols, y + t * cols, [=](Sum v) { return vector_math::exp(v - max) * scale; }, in);
  }
}

// As above; dx may be dy.
template <bool log, class Row, class T>
__global__ void softmax_backward_kernel(Row row, int64_t rows, int64_t cols, const T* dy, const T* y, T* dx) {
  using Sum = sum_type<T>;
  const int64_t t = row.index();
  if (t >= rows) return;
  const T *g = dy + t * cols, *p = y + t * cols;
  T* out = dx + t * cols;
  if constexpr (log) {
    const Sum sum = row.template sum<Sum>(
        cols, [](Sum a) { return a; }, g);
    row.map(
        cols, out, [=](Sum a, Sum b) { return a - vector_math::exp(b) * sum; }, g, p);
  } else {
    const Sum sum = row.template sum<Sum>(
        cols, [](Sum a, Sum b) { return a * b; }, g, p);
    row.map(
        cols, out, [=](Sum a, Sum b) { return b * (a - sum); }, g, p);
  }
}

template <bool log>
void forward(const char* where, Context& ctx, const Tensor& x, Tensor& y) {
  const int64_t T = x.dim(0), C = x.dim(1);
  dispatch_compute(where, x.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    auto run = [&](auto row) {
      cuda::launch(ctx, where, softmax_kernel<log, decltype(row), E>, {row.blocks(T), cuda::block_threads}, row, T, C,
                   x.data<E>(), y.data<E>());
    };
    cuda::with_row(C, run, x.data<E>(), y.data<E>());
  });
}

template <bool log>
void backward(const char* where, Context& ctx, const Tensor& dy, const Tensor& y, Tensor& dx) {
  const int64_t T = y.dim(0), C = y.dim(1);
  dispatch_compute(where, y.dtype(), [&](auto type) {
    using E = typename decltype(type)::type;
    auto run = [&](auto row) {
      cuda::launch(ctx, where, softmax_backward_kernel<log, decltype(row), E>, {row.blocks(T), cuda::block_threads},
                   row, T, C, dy.data<E>(), y.data<E>(), dx.data<E>());
    };
    cuda::with_row(C, run, dy.data<E>(), y.data<E>(), dx.data<E>());
  });
}

}  // namespace

namespace cuda {

void softmax(Context& ctx, const char* where, bool log, const Tensor& x, Tensor& y) {
  (log ? forward<true> : forward<false>)(where, ctx, x, y);
}

void softmax_backward(Context& ctx, const char* where, bool log, const Tensor& dy, const Tensor& y, Tensor& dx) {
  (log ? backward<true> : backward<false>)(where, ctx, dy, y, dx);
}

}  // namespace cuda

}  // namespace lightcone::kernels

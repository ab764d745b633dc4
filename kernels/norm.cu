#include "kernels/device.cuh"
#include "kernels/norm_types.h"

namespace lightcone::kernels {

namespace {

// The owners of a Row (a warp up to 1024 columns, a block beyond) own one row each; those past the last row leave
// together. The row is read again from the first-level cache for each of its sums.
template <bool centred, class Row, class X, class Y, class Sum>
__global__ void norm_kernel(Row row, int64_t rows, int64_t cols, const X* x, Sum eps, Y* y, Sum* rstd) {
  const int64_t t = row.index();
  if (t >= rows) return;
  const X* in = x + t * cols;
  Sum mean = 0;
  if constexpr (centred)
    mean = row.template sum<Sum>(
               cols, [](Sum v) { return v; }, in) /
           cols;
  // Two passes: the one-pass variance cancels for log-energies, whose mean is far from zero.
  const Sum squares = row.template sum<Sum>(
      cols, [=](Sum v) { return (v - mean) * (v - mean); }, in);
  const Sum r = 1 / std::sqrt(squares / cols + eps);
  if (row.first()) rstd[t] = r;
  row.map(
      cols, y + t * cols, [=](Sum v) { return (v - mean) * r; }, in);
}

// As above; dx may be `add` or dy, since an element is read and written by one thread, after the sums.
template <bool centred, class Row, class X, class Y, class Sum>
__global__ void norm_backward_kernel(Row row, int64_t rows, int64_t cols, const Y* dy, const Y* y, const Sum* rstd,
                                     const X* add, X* dx) {
  const int64_t t = row.index();
  if (t >= rows) return;
  const Y *g = dy + t * cols, *n = y + t * cols;
  const Sum r = rstd[t], mean_gn = row.template sum<Sum>(
                                       cols, [](Sum a, Sum b) { return a * b; }, g, n) /
                                   cols;
  Sum mean_g = 0;
  if constexpr (centred)
    mean_g = row.template sum<Sum>(
                 cols, [](Sum a) { return a; }, g) /
             cols;
  auto value = [=](Sum a, Sum b) { return r * (a - mean_g - b * mean_gn); };
  if (add)
    row.map(
        cols, dx + t * cols, [=](Sum more, Sum a, Sum b) { return more + value(a, b); }, add + t * cols, g, n);
  else
    row.map(cols, dx + t * cols, value, g, n);
}

template <bool centred>
void forward(const char* where, Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd) {
  const int64_t T = x.dim(0), C = x.dim(1);
  dispatch_narrow(where, x.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using Sum = sum_type<X>;
    auto run = [&](auto row) {
      cuda::launch(ctx, where, norm_kernel<centred, decltype(row), X, Y, Sum>, {row.blocks(T), cuda::block_threads},
                   row, T, C, x.data<X>(), static_cast<Sum>(eps), y.data<Y>(), rstd.data<Sum>());
    };
    cuda::with_row(C, run, x.data<X>(), y.data<Y>());
  });
}

template <bool centred>
void backward(const char* where, Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, const Tensor& add,
              Tensor& dx) {
  const int64_t T = dx.dim(0), C = dx.dim(1);
  dispatch_narrow(where, dx.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using Sum = sum_type<X>;
    const X* more = add.defined() ? add.data<X>() : nullptr;
    auto run = [&](auto row) {
      cuda::launch(ctx, where, norm_backward_kernel<centred, decltype(row), X, Y, Sum>,
                   {row.blocks(T), cuda::block_threads}, row, T, C, dy.data<Y>(), y.data<Y>(), rstd.data<Sum>(), more,
                   dx.data<X>());
    };
    cuda::with_row(C, run, dx.data<X>(), dy.data<Y>(), y.data<Y>(), more);
  });
}

}  // namespace

namespace cuda {

void norm(Context& ctx, const char* where, bool centred, const Tensor& x, double eps, Tensor& y, Tensor& rstd) {
  (centred ? forward<true> : forward<false>)(where, ctx, x, eps, y, rstd);
}

void norm_backward(Context& ctx, const char* where, bool centred, const Tensor& dy, const Tensor& y, const Tensor& rstd,
                   const Tensor& add, Tensor& dx) {
  (centred ? backward<true> : backward<false>)(where, ctx, dy, y, rstd, add, dx);
}

}  // namespace cuda

}  // namespace lightcone::kernels

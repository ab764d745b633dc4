#include "kernels/norm.h"

#include <cmath>

#include "engine/check.h"
#include "engine/threads.h"
#include "kernels/norm_types.h"
#include "kernels/vector.h"

namespace lightcone::kernels {

namespace cpu {
template <class X, class Y, class Sum = sum_type<X>>
void layer_norm(Context& ctx, int64_t rows, int64_t cols, const X* x, Sum eps, Y* y, Sum* rstd) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const X* in = x + t * cols;
    const Sum mean = sum_row<Sum>(cols, [&](auto at) { return at(in); }) / cols;
    // Two passes: the one-pass variance cancels for log-energies, whose mean is far from zero.
    auto square = [&](auto at) {
      const auto d = at(in) - mean;
      return d * d;
    };
    const Sum r = rstd[t] = 1 / std::sqrt(sum_row<Sum>(cols, square) / cols + eps);
    map_row(cols, y + t * cols, [&](auto at) { return (at(in) - mean) * r; });
  });
}

template <class X, class Y, class Sum = sum_type<X>>
void rms_norm(Context& ctx, int64_t rows, int64_t cols, const X* x, Sum eps, Y* y, Sum* rstd) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const X* in = x + t * cols;
    const Sum squares = sum_row<Sum>(cols, [&](auto at) { return at(in) * at(in); });
    const Sum r = rstd[t] = 1 / std::sqrt(squares / cols + eps);
    map_row(cols, y + t * cols, [&](auto at) { return at(in) * r; });
  });
}

// dx = rstd (dy - <dy> - y <dy y>), without <dy> unless `centred`; plus the row of `add` if there is one.
template <bool centred, class X, class Y, class Sum = sum_type<X>>
void norm_backward(Context& ctx, int64_t rows, int64_t cols, const Y* dy, const Y* y, const Sum* rstd, const X* add,
                   X* dx) {
  parallel_rows(ctx, rows, cols, [&](int64_t t) {
    const Y *g = dy + t * cols, *n = y + t * cols;
    X* out = dx + t * cols;
    const Sum r = rstd[t], mean_gn = sum_row<Sum>(cols, [&](auto at) { return at(g) * at(n); }) / cols,
              mean_g = centred ? sum_row<Sum>(cols, [&](auto at) { return at(g); }) / cols : 0;
    auto value = [&](auto at) { return r * (at(g) - mean_g - at(n) * mean_gn); };
    if (const X* more = add ? add + t * cols : nullptr)
      map_row(cols, out, [&](auto at) { return at(more) + value(at); });
    else
      map_row(cols, out, value);
  });
}
}  // namespace cpu

namespace cuda {  // norm.cu
void norm(Context& ctx, const char* where, bool centred, const Tensor& x, double eps, Tensor& y, Tensor& rstd);
void norm_backward(Context& ctx, const char* where, bool centred, const Tensor& dy, const Tensor& y, const Tensor& rstd,
                   const Tensor& add, Tensor& dx);
}  // namespace cuda

namespace {
enum class Norm { layer, rms };

void check_y(const Context& ctx, const char* where, const Tensor& y, const Tensor& x) {
  Check c = check(ctx, where, "y", y).shape(x.shape());
  x.dtype() == DType::f32 ? c.dtype(DType::f32, DType::bf16) : c.dtype(x.dtype());
}

template <Norm norm>
void forward(const char* where, double flops, Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd) {
  check(ctx, where, "x", x).rank(2).compute();
  const int64_t T = x.dim(0), C = x.dim(1);
  if (C == 0) fail(where, "x has 0 columns");
  check_y(ctx, where, y, x);
  check(ctx, where, "rstd", rstd).shape({T}).dtype(sum_dtype(x.dtype()));
  const auto scope = ctx.profiler().scope(where, x.bytes() + y.bytes(), flops * x.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::norm(ctx, where, norm == Norm::layer, x, eps, y, rstd);
  dispatch_narrow(where, x.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    using Sum = sum_type<X>;
    constexpr auto kernel = norm == Norm::layer ? cpu::layer_norm<X, Y> : cpu::rms_norm<X, Y>;
    kernel(ctx, T, C, x.data<X>(), static_cast<Sum>(eps), y.data<Y>(), rstd.data<Sum>());
  });
}

template <Norm norm>
void backward(const char* where, double flops, Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd,
              const Tensor& add, Tensor& dx) {
  check(ctx, where, "dx", dx).rank(2).compute();
  const int64_t T = dx.dim(0), C = dx.dim(1);
  check_y(ctx, where, y, dx);
  check(ctx, where, "dy", dy).like(y);
  check(ctx, where, "rstd", rstd).shape({T}).dtype(sum_dtype(dx.dtype()));
  if (add.defined()) check(ctx, where, "add", add).like(dx);
  const auto scope = ctx.profiler().scope(where, 2. * y.bytes() + dx.bytes() + add.bytes(), flops * y.numel());
  if constexpr (built_with_cuda)
    if (ctx.device() == Device::cuda) return cuda::norm_backward(ctx, where, norm == Norm::layer, dy, y, rstd, add, dx);
  dispatch_narrow(where, dx.dtype(), y.dtype(), [&](auto in, auto out) {
    using X = typename decltype(in)::type;
    using Y = typename decltype(out)::type;
    cpu::norm_backward<norm == Norm::layer, X, Y>(ctx, T, C, dy.data<Y>(), y.data<Y>(), rstd.data<sum_type<X>>(),
                                                  add.defined() ? add.data<X>() : nullptr, dx.data<X>());
  });
}
}  // namespace

void layer_norm(Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd) {
  forward<Norm::layer>("layer_norm", 7, ctx, x, eps, y, rstd);
}
void layer_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, const Tensor& add,
                         Tensor& dx) {
  backward<Norm::layer>("layer_norm_backward", 8, ctx, dy, y, rstd, add, dx);
}

void rms_norm(Context& ctx, const Tensor& x, double eps, Tensor& y, Tensor& rstd) {
  forward<Norm::rms>("rms_norm", 3, ctx, x, eps, y, rstd);
}
void rms_norm_backward(Context& ctx, const Tensor& dy, const Tensor& y, const Tensor& rstd, const Tensor& add,
                       Tensor& dx) {
  backward<Norm::rms>("rms_norm_backward", 5, ctx, dy, y, rstd, add, dx);
}

}  // namespace lightcone::kernels

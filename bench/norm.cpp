#include "kernels/norm.h"

#include <cmath>

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// y and dx of the formulas in norm.h, in f64, row by row.
void naive_layer_norm(Context& ctx, const Tensor& x, const Tensor& dy, Tensor& y, Tensor& dx) {
  const int64_t T = x.dim(0), C = x.dim(1);
  const Tensor x64 = converted(ctx, x, DType::f64), dy64 = converted(ctx, dy, DType::f64);
  for (int64_t t = 0; t < T; ++t) {
    const double *in = x64.data<double>() + t * C, *g = dy64.data<double>() + t * C;
    double *n = y.data<double>() + t * C, *out = dx.data<double>() + t * C;
    double mean = 0, variance = 0, mean_g = 0, mean_gn = 0;
    for (int64_t c = 0; c < C; ++c) mean += in[c] / C;
    for (int64_t c = 0; c < C; ++c) variance += (in[c] - mean) * (in[c] - mean) / C;
    const double rstd = 1 / std::sqrt(variance + 1e-5);
    for (int64_t c = 0; c < C; ++c) {
      n[c] = (in[c] - mean) * rstd;
      mean_g += g[c] / C;
      mean_gn += g[c] * n[c] / C;
    }
    for (int64_t c = 0; c < C; ++c) out[c] = rstd * (g[c] - mean_g - n[c] * mean_gn);
  }
}

const Family norm([](Runner& run) {
  Context& ctx = run.context();
  const int64_t T = 7000, C = 128;
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    struct Operands {
      Tensor x, dy, y, dx, rstd;
    };
    auto operands = [&run, dtype] {
      const DType sums = sum_dtype(dtype);
      return Operands{run.normal({T, C}, dtype, 1), run.normal({T, C}, dtype, 2), run.empty({T, C}, dtype),
                      run.empty({T, C}, dtype), run.empty({T}, sums)};
    };
    auto forward = [&ctx](Operands& o) { kernels::layer_norm(ctx, o.x, 1e-5, o.y, o.rstd); };
    auto backward = [&ctx](Operands& o) { kernels::layer_norm_backward(ctx, o.dy, o.y, o.rstd, Tensor(), o.dx); };
    // The error of y and of dx.
    auto errors = [&] {
      Operands o = operands();
      forward(o);
      backward(o);
      Tensor y = run.empty({T, C}, DType::f64), dx = run.empty({T, C}, DType::f64);
      naive_layer_norm(ctx, o.x, o.dy, y, dx);
      return std::pair{relative_error(o.y, y), relative_error(o.dx, dx)};
    };
    const double bytes = static_cast<double>(T * C * size_of(dtype));
    run({.name = fmt::format("layer_norm {} {}", dtype, Shape{T, C}),
         .dtype = dtype,
         .bytes = 2 * bytes,
         .flops = 7. * T * C,
         .error = [&] { return errors().first; },
         .tolerance = tolerance(dtype),
         .make = [&]() -> std::function<void()> { return [o = operands(), forward]() mutable { forward(o); }; }});
    run({.name = fmt::format("layer_norm_backward {} {}", dtype, Shape{T, C}),
         .dtype = dtype,
         .bytes = 3 * bytes,
         .flops = 8. * T * C,
         .error = [&] { return errors().second; },
         .tolerance = tolerance(dtype),
         .make = [&]() -> std::function<void()> {
           Operands o = operands();
           forward(o);  // y and rstd
           return [o, backward]() mutable { backward(o); };
         }});
  }
});

}  // namespace
}  // namespace lightcone::bench

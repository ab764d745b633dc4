#include "kernels/geometric_algebra.h"

#include "bench/harness.h"
#include "kernels/geometric_algebra_math.h"

namespace lightcone::bench {
namespace {

// The product of geometric_algebra.h in f64, term by term.
void naive_product(Context& ctx, const Tensor& lr, Tensor& y) {
  const Tensor in = converted(ctx, lr, DType::f64);
  const int64_t T = lr.dim(1), C = lr.dim(2) / 4;
  for (int i = 0; i < geometric_algebra::components; ++i)
    for (int64_t t = 0; t < T; ++t)
      for (int64_t c = 0; c < C; ++c) {
        auto at = [&](int place, int64_t column) {
          return in.data<double>()[((place / 2) * T + t) * 4 * C + column + place % 2 * C + c];
        };
        double sum = 0;
        for (int j = 0; j < geometric_algebra::components; ++j) {
          const auto term = geometric_algebra::term(i, j);
          sum += term.sign * at(j, 0) * at(term.partner, 2 * C);
        }
        y.data<double>()[((i / 2) * T + t) * 2 * C + i % 2 * C + c] = sum;
      }
}

const Family family([](Runner& run) {
  Context& ctx = run.context();
  const int64_t T = 1000, C = 32;
  for (DType dtype : {DType::f32, DType::bf16}) {
    struct Operands {
      Tensor x, dy, y, dx, rstd;
    };
    // `columns` of x, and of y.
    auto operands = [&run, dtype](int64_t columns, int64_t out) {
      return Operands{run.normal({8, T, columns}, dtype, 1), run.normal({8, T, out}, dtype, 2),
                      run.normal({8, T, out}, dtype, 4), run.normal({8, T, columns}, dtype, 5),
                      run.normal({T, columns / 8}, sum_dtype(dtype), 3)};
    };
    // The error against the same in f64 of the same numbers.
    auto error = [&run, &ctx](Operands o, auto&& kernel, Tensor Operands::*result) {
      kernel(o);
      Operands wide;
      for (auto member : {&Operands::x, &Operands::dy, &Operands::y, &Operands::dx, &Operands::rstd})
        wide.*member = converted(ctx, o.*member, DType::f64);
      kernel(wide);
      return relative_error(o.*result, wide.*result);
    };
    const double bytes = static_cast<double>(16 * T * C * size_of(dtype));
    run({.name = fmt::format("geometric_product {} {}", dtype, Shape{8, T, 4 * C}),
         .dtype = dtype,
         .bytes = 3 * bytes,
         .flops = 512. * T * C,
         .error =
             [&] {
               Operands o = operands(4 * C, 2 * C);
               kernels::geometric_product(ctx, o.x, o.y);
               Tensor y = run.empty({8, T, 2 * C}, DType::f64);
               naive_product(ctx, o.x, y);
               return relative_error(o.y, y);
             },
         .tolerance = tolerance(dtype),
         .make = [&]() -> std::function<void()> {
           return [&ctx, o = operands(4 * C, 2 * C)]() mutable { kernels::geometric_product(ctx, o.x, o.y); };
         }});
    auto one = [&](const std::string& name, int64_t columns, int64_t out, double passes, double flops, auto kernel,
                   Tensor Operands::*result) {
      run({.name = fmt::format("{} {} {}", name, dtype, Shape{8, T, columns}),
           .dtype = dtype,
           .bytes = passes * bytes,
           .flops = flops * T * C,
           .error = [&] { return error(operands(columns, out), kernel, result); },
           .tolerance = tolerance(dtype),
           .make = [&]() -> std::function<void()> {
             return [o = operands(columns, out), kernel]() mutable { kernel(o); };
           }});
    };
    one(
        "geometric_product_backward", 4 * C, 2 * C, 5, 1024,
        [&ctx](Operands& o) { kernels::geometric_product_backward(ctx, o.dy, o.x, o.dx); }, &Operands::dx);
    // Queries, keys and values of heads with 4 channels, as L-GATr has them.
    one(
        "equi_norm in groups of 4", 6 * C, 6 * C, 6, 3 * 48,
        [&ctx](Operands& o) { kernels::equi_norm(ctx, o.x, 4, 0.01, o.y, o.rstd); }, &Operands::y);
    one(
        "equi_norm_backward in groups of 4", 6 * C, 6 * C, 9, 7 * 48,
        [&ctx](Operands& o) { kernels::equi_norm_backward(ctx, o.dy, o.x, o.rstd, 0.01, Tensor(), o.dx); },
        &Operands::dx);
    one(
        "gated", 2 * C, 2 * C, 2, 17, [&ctx](Operands& o) { kernels::gated(ctx, kernels::Gate::gelu, o.x, o.y); },
        &Operands::y);
    one(
        "gated_backward", 2 * C, 2 * C, 3, 52,
        [&ctx](Operands& o) { kernels::gated_backward(ctx, kernels::Gate::gelu, o.dy, o.x, o.dx); }, &Operands::dx);
  }
});

}  // namespace
}  // namespace lightcone::bench

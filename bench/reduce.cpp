#include "kernels/reduce.h"

#include <cmath>

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

const Family reduce([](Runner& run) {
  Context& ctx = run.context();
  using kernels::Over;
  const Shape shape = {7000, 512};
  for (DType dtype : {DType::f32, DType::bf16}) {
    const double bytes = static_cast<double>(shape.numel() * size_of(dtype));
    for (auto [name, over] : {std::pair{"last", Over::last}, {"leading", Over::leading}, {"all", Over::all}})
      run({.name = fmt::format("sum over {} {} {}", name, dtype, shape),
           .dtype = dtype,
           .bytes = bytes,
           .flops = static_cast<double>(shape.numel()),
           .error =
               [&] {
                 const Tensor x = run.normal(shape, dtype), x64 = converted(ctx, x, DType::f64);
                 Tensor y = run.empty(kernels::shape_of_sum(shape, over), dtype);
                 kernels::sum(ctx, x, over, 1, y);
                 Tensor sums = ctx.zeros(y.shape(), DType::f64);
                 for (int64_t i = 0; i < x64.numel(); ++i)
                   sums.data<double>()[over == Over::last      ? i / shape[1]
                                       : over == Over::leading ? i % shape[1]
                                                               : 0] += x64.data<double>()[i];
                 return relative_error(y, sums);
               },
           .tolerance = tolerance(dtype),
           .make = [&]() -> std::function<void()> {
             return [x = run.normal(shape, dtype), y = run.empty(kernels::shape_of_sum(shape, over), dtype), over,
                     &ctx]() mutable { kernels::sum(ctx, x, over, 1, y); };
           }});
  }
  const double bytes = static_cast<double>(shape.numel() * size_of(DType::f32));
  run({.name = fmt::format("sum_of_squares f32 {}", shape),
       .bytes = bytes,
       .flops = 2. * static_cast<double>(shape.numel()),
       .error =
           [&] {
             const Tensor x = run.normal(shape, DType::f32);
             long double sum = 0;
             for (float v : x.span<float>()) sum += static_cast<double>(v) * v;
             return std::abs(kernels::sum_of_squares(ctx, x) / static_cast<double>(sum) - 1);
           },
       .tolerance = tolerance(DType::f64),
       .make = [&]() -> std::function<void()> {
         return [x = run.normal(shape, DType::f32), &ctx] { kernels::sum_of_squares(ctx, x); };
       }});
  run({.name = fmt::format("all_finite f32 {}", shape),
       .bytes = bytes,
       .error =
           [&] {
             Tensor x = run.normal(shape, DType::f32);
             const bool before = kernels::all_finite(ctx, x);
             x.span<float>().back() = INFINITY;
             return before && !kernels::all_finite(ctx, x) ? 0. : 1.;
           },
       .make = [&]() -> std::function<void()> {
         return [x = run.normal(shape, DType::f32), &ctx] { kernels::all_finite(ctx, x); };
       }});
});

}  // namespace
}  // namespace lightcone::bench

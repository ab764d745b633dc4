#include "kernels/elementwise.h"

#include <cmath>

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// The result of f for each element of x (and z), as f64.
Tensor expected(Context& ctx, const Tensor& x, const Tensor& z, double (*f)(double, double)) {
  Tensor y = converted(ctx, x, DType::f64);
  const Tensor w = converted(ctx, z, DType::f64);
  for (int64_t i = 0; i < y.numel(); ++i) y.data<double>()[i] = f(y.data<double>()[i], w.data<double>()[i]);
  return y;
}

double gelu(double x, double) { return 0.5 * x * std::erfc(-x / std::sqrt(2)); }
double gelu_backward(double d, double x) {
  return d * (0.5 * std::erfc(-x / std::sqrt(2)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI));
}

const Family elementwise([](Runner& run) {
  Context& ctx = run.context();
  const Shape shape = {7000, 512};
  using Call = void (*)(Context&, const Tensor& x, const Tensor& z, Tensor& y);
  auto one = [&](const char* name, Call call, double (*f)(double, double), double tensors, DType dtype, DType out) {
    run({.name = fmt::format("{} {} {}", name, dtype, shape),
         .dtype = dtype,
         .bytes = static_cast<double>(shape.numel()) *
                  ((tensors - 1) * static_cast<double>(size_of(dtype)) + static_cast<double>(size_of(out))),
         .flops = static_cast<double>(shape.numel()),
         .error =
             [&] {
               const Tensor x = run.normal(shape, dtype, 1), z = run.normal(shape, dtype, 2);
               Tensor y = run.empty(shape, out);
               call(ctx, x, z, y);
               return relative_error(y, expected(ctx, x, z, f));
             },
         .tolerance = tolerance(out),
         .make = [&]() -> std::function<void()> {
           return [x = run.normal(shape, dtype, 1), z = run.normal(shape, dtype, 2), y = run.empty(shape, out), call,
                   &ctx]() mutable { call(ctx, x, z, y); };
         }});
  };
  for (DType dtype : {DType::f32, DType::bf16}) {
    one(
        "add", [](Context& ctx, auto& x, auto& z, auto& y) { kernels::add(ctx, x, z, y); },
        [](double a, double b) { return a + b; }, 3, dtype, dtype);
    one(
        "gelu", [](Context& ctx, auto& x, auto&, auto& y) { kernels::unary(ctx, kernels::Unary::gelu, x, y); }, gelu, 2,
        dtype, dtype);
    one(
        "gelu backward",
        [](Context& ctx, auto& x, auto& z, auto& y) { kernels::unary_backward(ctx, kernels::Unary::gelu, x, z, y); },
        gelu_backward, 3, dtype, dtype);
  }
  one(
      "cast to bf16", [](Context& ctx, auto& x, auto&, auto& y) { kernels::cast(ctx, x, y); },
      [](double a, double) { return a; }, 2, DType::f32, DType::bf16);
});

}  // namespace
}  // namespace lightcone::bench

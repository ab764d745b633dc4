#include "kernels/random.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// The numbers are the Draw's, one by one.
const Family random_numbers([](Runner& run) {
  Context& ctx = run.context();
  const Shape shape = {7000, 128};
  const Draw draw = Rng(1).draw("bench", shape.numel());
  const double p = 0.1;
  for (DType dtype : {DType::f32, DType::bf16})
    run({.name = fmt::format("dropout {} {}", dtype, shape),
         .dtype = dtype,
         .shape = shape,
         .operands = [&run, dtype, shape] { return std::vector{run.normal(shape, dtype, 1)}; },
         .kernel = [&](auto& x, Tensor& y) { kernels::dropout(ctx, draw, p, x[0], y); },
         .naive =
             [&](const auto& x, auto& y) {
               for (size_t i = 0; i < y.size(); ++i) y[i] = draw.uniform(i) >= p ? x[0][i] / (1 - p) : 0;
             }});
  auto none = [] { return std::vector<Tensor>{}; };
  run({.name = fmt::format("fill_uniform f32 {}", shape),
       .shape = shape,
       .operands = none,
       .kernel = [&](auto&, Tensor& y) { kernels::fill_uniform(ctx, draw, -2, 5, y); },
       .naive =
           [&](const auto&, auto& y) {
             for (size_t i = 0; i < y.size(); ++i) y[i] = -2 + 7 * draw.uniform53(i);
           }});
  run({.name = fmt::format("fill_normal f32 {}", shape),
       .shape = shape,
       .operands = none,
       .kernel = [&](auto&, Tensor& y) { kernels::fill_normal(ctx, draw, 3, 0.5, y); },
       .naive =
           [&](const auto&, auto& y) {
             for (size_t i = 0; i < y.size(); ++i) y[i] = 3 + 0.5 * draw.normal(i);
           }});
});

}  // namespace
}  // namespace lightcone::bench

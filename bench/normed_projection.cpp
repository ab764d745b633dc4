#include "kernels/normed_projection.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// Queries, keys and values of tag_slim: 8 heads of 4 vectors and 12 scalars.
struct Operands {
  Tensor v, s, bias, dyv, dys, yv, ys, dv, ds, dw_v, dw_s, dbias;
  std::shared_ptr<kernels::Weights> w_v, w_s;
};

void normed_projection_case(Runner& run, bool backward, int64_t T, DType products) {
  Context& ctx = run.context();
  const int64_t V = 32, S = 96, rows_v = 3 * V, rows_s = 3 * S, groups = 24;
  auto operands = [=, &run](DType dtype, DType products) {
    auto weights = [&](Shape shape, int seed) {
      return std::make_shared<kernels::Weights>(run.normal(shape, dtype, seed), products);
    };
    const DType out = products == DType::bf16 ? DType::bf16 : dtype;
    return Operands{.v = run.normal({T, 4, V}, dtype, 1),
                    .s = run.normal({T, S}, dtype, 2),
                    .bias = run.normal({rows_s}, dtype, 3),
                    .dyv = run.normal({T, 4, rows_v}, out, 4),
                    .dys = run.normal({T, rows_s}, out, 5),
                    .yv = run.empty({T, 4, rows_v}, out),
                    .ys = run.empty({T, rows_s}, out),
                    .dv = run.empty({T, 4, V}, dtype),
                    .ds = run.empty({T, S}, dtype),
                    .dw_v = run.empty({rows_v, V}, dtype),
                    .dw_s = run.empty({rows_s, S}, dtype),
                    .dbias = run.empty({rows_s}, dtype),
                    .w_v = weights({rows_v, V}, 6),
                    .w_s = weights({rows_s, S}, 7)};
  };
  auto call = [=, &ctx](Operands& o) {
    const kernels::ProjectionWeights w{o.w_v.get(), o.w_s.get(), o.bias};
    if (backward)
      kernels::normed_projection_backward(ctx, o.dyv, o.dys, o.v, o.s, w, true, groups, 0.01, {}, {},
                                          {.dv = &o.dv, .ds = &o.ds, .w_v = &o.dw_v, .w_s = &o.dw_s, .bias = &o.dbias});
    else
      kernels::normed_projection(ctx, o.v, o.s, w, true, groups, 0.01, o.yv, o.ys);
  };
  run({.name = fmt::format("normed_projection{} f32{} T {}", backward ? "_backward" : "",
                           products == DType::bf16 ? " in bf16" : "", T),
       .dtype = products,
       .bytes = (backward ? 2. : 1.) * T * (4 * V + S) * 4 + 1. * T * (4 * rows_v + rows_s) * size_of(products),
       .flops = (backward ? 6. : 2.) * T * (4 * rows_v * V + rows_s * S),
       .ceiling = Ceiling::gemm,
       .error =
           [&] {
             Operands o = operands(DType::f32, products), reference = operands(DType::f64, DType::f64);
             call(o);
             call(reference);
             // Of gradients those of weights: vectors that rounding takes across the light cone turn signs of others.
             return backward ? relative_error(o.dw_s, reference.dw_s)
                             : std::max(relative_error(o.yv, reference.yv), relative_error(o.ys, reference.ys));
           },
       .tolerance = tolerance(products),
       .make = [&]() -> std::function<void()> {
         return [o = operands(DType::f32, products), call]() mutable { call(o); };
       }});
}

const Family normed_projection([](Runner& run) {
  // A single jet, a part of a batch as one thread has it.
  for (DType products : {DType::f32, DType::bf16})
    for (int64_t T : {50, 900})
      for (bool backward : {false, true}) normed_projection_case(run, backward, T, products);
});

}  // namespace
}  // namespace lightcone::bench

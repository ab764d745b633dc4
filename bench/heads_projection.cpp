#include "kernels/heads_projection.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// Into the attention of tag_slim, queries, keys and values in 8 heads of 4 vectors and 12 scalars, and out of it.
struct Operands {
  Tensor v, s, bias, dy, y, dv, ds, dw_v, dw_s, dbias;
  std::shared_ptr<kernels::Weights> w_v, w_s;
};

void heads_projection_case(Runner& run, bool in, bool backward, int64_t T, DType products) {
  Context& ctx = run.context();
  const int64_t V = 32, S = 96, heads = in ? 24 : 8, Cv = heads * 4, Cs = heads * 12;
  const Shape shape_v = in ? Shape{Cv, V} : Shape{V, Cv}, shape_s = in ? Shape{Cs, S} : Shape{S, Cs};
  auto operands = [=, &run](DType dtype, DType products) {
    auto weights = [&](Shape shape, int seed) {
      return std::make_shared<kernels::Weights>(run.normal(shape, dtype, seed), products);
    };
    const DType out = products == DType::bf16 ? DType::bf16 : dtype;
    return Operands{.v = run.normal({T, 4, V}, dtype, 1),
                    .s = run.normal({T, S}, dtype, 2),
                    .bias = run.normal({shape_s[0]}, dtype, 3),
                    .dy = run.normal({heads, T, 28}, out, 4),
                    .y = run.normal({heads, T, 28}, out, 5),
                    .dv = run.empty({T, 4, V}, dtype),
                    .ds = run.empty({T, S}, dtype),
                    .dw_v = run.empty(shape_v, dtype),
                    .dw_s = run.empty(shape_s, dtype),
                    .dbias = run.empty({shape_s[0]}, dtype),
                    .w_v = weights(shape_v, 6),
                    .w_s = weights(shape_s, 7)};
  };
  auto call = [=, &ctx](Operands& o) {
    const kernels::ProjectionWeights w{o.w_v.get(), o.w_s.get(), o.bias};
    const kernels::HeadGroups groups{heads, heads / 3, 2 * heads / 3};
    if (in && backward)
      kernels::project_to_heads_backward(ctx, o.dy, o.v, o.s, w, true, groups, 0.01, {}, {},
                                         {.dv = &o.dv, .ds = &o.ds, .w_v = &o.dw_v, .w_s = &o.dw_s, .bias = &o.dbias});
    else if (in)
      kernels::project_to_heads(ctx, o.v, o.s, w, true, groups, 0.01, o.y);
    else if (backward)
      kernels::project_from_heads_backward(ctx, o.v, o.s, o.y, w,
                                           {.dx = &o.dy, .w_v = &o.dw_v, .w_s = &o.dw_s, .bias = &o.dbias});
    else
      kernels::project_from_heads(ctx, o.y, w, o.v, o.s, o.dv, o.ds);
  };
  run({.name = fmt::format("project_{}_heads{} f32{} T {}", in ? "to" : "from", backward ? "_backward" : "",
                           products == DType::bf16 ? " in bf16" : "", T),
       .dtype = products,
       .bytes = 2. * T * (4 * V + S) * 4 + (backward ? 2. : 1.) * T * heads * 28 * size_of(products),
       .flops = (!backward ? 2.
                 : in      ? 6.
                           : 4.) *
                T * (4 * Cv * V + Cs * S),
       .ceiling = Ceiling::gemm,
       .error =
           [&] {
             Operands o = operands(DType::f32, products), reference = operands(DType::f64, DType::f64);
             call(o);
             call(reference);
             // Of gradients those of weights: vectors that rounding takes across the light cone turn signs of others.
             if (backward) return relative_error(o.dw_s, reference.dw_s);
             return in ? relative_error(o.y, reference.y)
                       : std::max(relative_error(o.dv, reference.dv), relative_error(o.ds, reference.ds));
           },
       .tolerance = tolerance(products),
       .make = [&]() -> std::function<void()> {
         return [o = operands(DType::f32, products), call]() mutable { call(o); };
       }});
}

const Family heads_projection([](Runner& run) {
  // A single jet, a part of a batch as one thread has it.
  for (DType products : {DType::f32, DType::bf16})
    for (int64_t T : {50, 900})
      for (bool in : {true, false})
        for (bool backward : {false, true}) heads_projection_case(run, in, backward, T, products);
});

}  // namespace
}  // namespace lightcone::bench

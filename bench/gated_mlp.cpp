#include "kernels/gated_mlp.h"

#include <cmath>

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// The feed-forward half of a block of tag_slim.
struct Operands {
  Tensor v, s, dyv, dys, up_bias, down_bias, yv, ys, dup_v, ddown_v, dup_s, dup_bias, ddown_s, ddown_bias;
  std::shared_ptr<kernels::Weights> up_v, down_v, up_s, down_s;
};

void gated_mlp_case(Runner& run, bool backward, int64_t T, DType products) {
  Context& ctx = run.context();
  const int64_t V = 32, S = 96, Hv = 4 * V, Hs = 4 * S;
  auto operands = [=, &run](DType dtype, DType products) {
    auto weights = [&](Shape shape, int seed) {
      // As small as initial weights: a gate multiplies two sums.
      Tensor w = run.normal(shape, dtype, seed), small = run.empty(shape, dtype);
      kernels::scale(run.context(), w, 1 / std::sqrt(static_cast<double>(shape[1])), small);
      return std::make_shared<kernels::Weights>(small, products);
    };
    return Operands{.v = run.normal({T, 4, V}, dtype, 1),
                    .s = run.normal({T, S}, dtype, 2),
                    .dyv = run.normal({T, 4, V}, dtype, 3),
                    .dys = run.normal({T, S}, dtype, 4),
                    .up_bias = run.normal({2 * Hs}, dtype, 5),
                    .down_bias = run.normal({S}, dtype, 6),
                    .yv = run.empty({T, 4, V}, dtype),
                    .ys = run.empty({T, S}, dtype),
                    .dup_v = run.empty({3 * Hv, V}, dtype),
                    .ddown_v = run.empty({V, Hv}, dtype),
                    .dup_s = run.empty({2 * Hs, S}, dtype),
                    .dup_bias = run.empty({2 * Hs}, dtype),
                    .ddown_s = run.empty({S, Hs}, dtype),
                    .ddown_bias = run.empty({S}, dtype),
                    .up_v = weights({3 * Hv, V}, 7),
                    .down_v = weights({V, Hv}, 8),
                    .up_s = weights({2 * Hs, S}, 9),
                    .down_s = weights({S, Hs}, 10)};
  };
  auto call = [&ctx, backward](Operands& o) {
    const kernels::GatedWeights vectors{o.up_v.get(), o.down_v.get(), {}, {}},
        scalars{o.up_s.get(), o.down_s.get(), o.up_bias, o.down_bias};
    if (backward)
      kernels::gated_mlp_backward(ctx, o.dyv, o.dys, o.v, o.s, vectors, scalars, 0.01, kernels::Unary::gelu,
                                  {.dv = &o.yv,
                                   .ds = &o.ys,
                                   .up_v = &o.dup_v,
                                   .down_v = &o.ddown_v,
                                   .up_s = &o.dup_s,
                                   .up_bias = &o.dup_bias,
                                   .down_s = &o.ddown_s,
                                   .down_bias = &o.ddown_bias});
    else
      kernels::gated_mlp(ctx, o.v, o.s, vectors, scalars, 0.01, kernels::Unary::gelu, o.yv, o.ys);
  };
  const double layer = 4. * 3 * Hv * V + 2. * Hs * S, last = 4. * Hv * V + 1. * Hs * S;
  run({.name = fmt::format("gated_mlp{} f32{} T {}", backward ? "_backward" : "",
                           products == DType::bf16 ? " in bf16" : "", T),
       .dtype = products,
       .bytes = (backward ? 3. : 2.) * T * (4 * V + S) * 4,
       .flops = 2. * T * (backward ? 3 * layer + 2 * last : layer + last),
       .ceiling = Ceiling::gemm,
       .error =
           [&] {
             Operands o = operands(DType::f32, products), reference = operands(DType::f64, DType::f64);
             call(o);
             call(reference);
             return std::max(relative_error(o.yv, reference.yv), relative_error(o.ys, reference.ys));
           },
       .tolerance = tolerance(products),
       .make = [&]() -> std::function<void()> {
         return [o = operands(DType::f32, products), call]() mutable { call(o); };
       }});
}

const Family gated_mlp([](Runner& run) {
  // A single jet, a part of a batch as one thread has it.
  for (DType products : {DType::f32, DType::bf16})
    for (int64_t T : {50, 900})
      for (bool backward : {false, true}) gated_mlp_case(run, backward, T, products);
});

}  // namespace
}  // namespace lightcone::bench

#include "kernels/mlp.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// The perceptron of a Transformer block: K to H and back.
struct Operands {
  Tensor x, b1, b2, residual, pre, y, dy, dx, dw1, db1, dw2, db2;
  std::shared_ptr<kernels::Weights> w1, w2;
};

void mlp_case(Runner& run, bool backward, int64_t T, int64_t K, int64_t H, DType products) {
  Context& ctx = run.context();
  // As a network uses it: in bf16 the backward computes the hidden values again.
  const bool keep = products != DType::bf16;
  auto operands = [&run, T, K, H, keep](DType dtype, DType products) {
    auto weights = [&](Shape shape, int seed) {
      return std::make_shared<kernels::Weights>(run.normal(shape, dtype, seed), products);
    };
    return Operands{.x = run.normal({T, K}, dtype, 1),
                    .b1 = run.normal({H}, dtype, 2),
                    .b2 = run.normal({K}, dtype, 3),
                    .residual = run.normal({T, K}, dtype, 4),
                    .pre = keep ? run.normal({T, H}, dtype, 5) : Tensor(),
                    .y = run.empty({T, K}, dtype),
                    .dy = run.normal({T, K}, dtype, 6),
                    .dx = run.empty({T, K}, dtype),
                    .dw1 = run.empty({H, K}, dtype),
                    .db1 = run.empty({H}, dtype),
                    .dw2 = run.empty({K, H}, dtype),
                    .db2 = run.empty({K}, dtype),
                    .w1 = weights({H, K}, 7),
                    .w2 = weights({K, H}, 8)};
  };
  auto call = [&ctx, backward](Operands& o) {
    if (backward)
      kernels::mlp_backward(ctx, o.dy, o.pre, o.x, *o.w1, o.b1, *o.w2,
                            {.dx = &o.dx, .dw1 = &o.dw1, .db1 = &o.db1, .dw2 = &o.dw2, .db2 = &o.db2});
    else
      kernels::mlp(ctx, o.x, *o.w1, o.b1, *o.w2, o.b2, o.residual, o.pre, o.y);
  };
  run({.name = fmt::format("mlp{} f32{} T {} K {} H {}", backward ? "_backward" : "",
                           products == DType::bf16 ? " in bf16" : "", T, K, H),
       .dtype = products,
       .bytes = static_cast<double>(3 * T * K + keep * T * H) * 4,
       .flops = (backward ? keep ? 8. : 10. : 4.) * T * K * H,
       .ceiling = Ceiling::gemm,
       .error =
           [&] {
             Operands o = operands(DType::f32, products), reference = operands(DType::f64, DType::f64);
             call(o);
             call(reference);
             return backward ? relative_error(o.dx, reference.dx) : relative_error(o.y, reference.y);
           },
       .tolerance = tolerance(products),
       .make = [&]() -> std::function<void()> {
         return [o = operands(DType::f32, products), call]() mutable { call(o); };
       }});
}

const Family mlp([](Runner& run) {
  // A single jet, a part of a batch as one thread has it, a whole batch; a small network.
  for (DType products : {DType::f32, DType::bf16})
    for (auto [T, K, H] : {std::tuple{50, 128, 512}, {900, 128, 512}, {7000, 128, 512}, {900, 16, 64}}) {
      mlp_case(run, false, T, K, H, products);
      mlp_case(run, true, T, K, H, products);
    }
});

}  // namespace
}  // namespace lightcone::bench

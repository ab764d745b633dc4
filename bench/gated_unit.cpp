#include "kernels/gated_unit.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// The hidden layer of tag_slim: 128 vectors, 384 scalars.
void gated_unit_case(Runner& run, bool backward, Shape in, Shape out) {
  Context& ctx = run.context();
  struct Operands {
    Tensor x, dy, result;
  };
  auto operands = [&run, backward, in, out](DType dtype) {
    return Operands{run.normal(in, dtype, 1), run.normal(out, dtype, 2), run.empty(backward ? in : out, dtype)};
  };
  auto call = [&ctx, backward](Operands& o) {
    if (backward)
      kernels::gated_unit_backward(ctx, o.dy, o.x, kernels::Unary::gelu, o.result);
    else
      kernels::gated_unit(ctx, o.x, kernels::Unary::gelu, o.result);
  };
  run({.name = fmt::format("gated_unit{} f32 {}", backward ? "_backward" : "", in),
       .bytes = 4. * ((backward ? 2 : 1) * in.numel() + out.numel()),
       .flops = (backward ? 8. : 3.) * out.numel(),
       .error =
           [&] {
             Operands o = operands(DType::f32), reference = operands(DType::f64);
             call(o);
             call(reference);
             return relative_error(o.result, reference.result);
           },
       .tolerance = tolerance(DType::f32),
       .make = [&]() -> std::function<void()> { return [o = operands(DType::f32), call]() mutable { call(o); }; }});
}

const Family gated_unit([](Runner& run) {
  const int64_t T = 3000;
  for (bool backward : {false, true}) {
    gated_unit_case(run, backward, {T, 4, 3 * 128}, {T, 4, 128});
    gated_unit_case(run, backward, {T, 2 * 384}, {T, 384});
  }
});

}  // namespace
}  // namespace lightcone::bench

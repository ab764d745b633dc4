#include "kernels/lorentz_norm.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// Tokens of tag_slim, and its queries, keys and values, normalised for each head.
void lorentz_norm_case(Runner& run, bool backward, int64_t V, int64_t S, int64_t groups) {
  Context& ctx = run.context();
  const int64_t T = 7000;
  struct Operands {
    Tensor v, s, dyv, dys, yv, ys;
  };
  auto operands = [&run, T, V, S](DType dtype) {
    return Operands{run.normal({T, 4, V}, dtype, 1), run.normal({T, S}, dtype, 2), run.normal({T, 4, V}, dtype, 3),
                    run.normal({T, S}, dtype, 4),    run.empty({T, 4, V}, dtype),  run.empty({T, S}, dtype)};
  };
  auto call = [&ctx, backward, groups](Operands& o) {
    if (backward)
      kernels::lorentz_norm_backward(ctx, o.dyv, o.dys, o.v, o.s, groups, 0.01, o.yv, o.ys);
    else
      kernels::lorentz_norm(ctx, o.v, o.s, groups, 0.01, o.yv, o.ys);
  };
  run({.name = fmt::format("lorentz_norm{} f32 V {} S {} groups {}", backward ? "_backward" : "", V, S, groups),
       .bytes = (backward ? 3. : 2.) * T * (4 * V + S) * 4,
       .flops = T * (backward ? 31. * V + 7. * S : 12. * V + 3. * S),
       .error =
           [&] {
             Operands o = operands(DType::f32), reference = operands(DType::f64);
             call(o);
             call(reference);
             return std::max(relative_error(o.yv, reference.yv), relative_error(o.ys, reference.ys));
           },
       .tolerance = tolerance(DType::f32),
       .make = [&]() -> std::function<void()> { return [o = operands(DType::f32), call]() mutable { call(o); }; }});
}

const Family lorentz_norm([](Runner& run) {
  for (bool backward : {false, true}) {
    lorentz_norm_case(run, backward, 32, 96, 1);
    lorentz_norm_case(run, backward, 96, 288, 24);
  }
});

}  // namespace
}  // namespace lightcone::bench

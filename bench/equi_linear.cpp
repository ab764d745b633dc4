#include "kernels/equi_linear.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

// The maps of a block of L-GATr: queries, keys and values, and one inside of its MLP.
const Family family([](Runner& run) {
  Context& ctx = run.context();
  const int64_t T = 1000;
  struct Size {
    int64_t C, N, S, So;
  };
  for (const Size& z : {Size{16, 96, 32, 192}, {32, 32, 32, 64}})
    for (DType products : {DType::f32, DType::bf16}) {
      struct Operands {
        std::vector<kernels::EquiLinearWeights> maps, gradients;
        std::shared_ptr<kernels::EquiLinearMatrices> matrices;
        Tensor x, s, y, y_s, dx, ds;
      };
      auto operands = [&run, &ctx, z](DType d, DType products) {
        Operands o;
        o.maps = {{.weight = run.normal({z.N, z.C, 10}, d, 1),
                   .bias = {},
                   .s2mvs = run.normal({2 * z.N, z.S}, d, 2),
                   .s2mvs_bias = run.normal({2 * z.N}, d, 3),
                   .mvs2s = run.normal({z.So, 2 * z.C}, d, 4),
                   .mvs2s_bias = run.normal({z.So}, d, 5),
                   .s2s = run.normal({z.So, z.S}, d, 6)}};
        o.gradients = {{.weight = run.empty({z.N, z.C, 10}, d),
                        .bias = {},
                        .s2mvs = run.empty({2 * z.N, z.S}, d),
                        .s2mvs_bias = run.empty({2 * z.N}, d),
                        .mvs2s = run.empty({z.So, 2 * z.C}, d),
                        .mvs2s_bias = run.empty({z.So}, d),
                        .s2s = run.empty({z.So, z.S}, d)}};
        o.matrices =
            std::make_shared<kernels::EquiLinearMatrices>(ctx, o.maps, Tensor(), kernels::EquiLinearLayout{}, products);
        o.x = run.normal({8, T, 2 * z.C}, d, 7), o.s = run.normal({T, z.S}, d, 8);
        o.y = run.normal({8, T, 2 * z.N}, d, 9), o.y_s = run.normal({T, z.So}, d, 10);
        o.dx = run.empty(o.x.shape(), d), o.ds = run.empty(o.s.shape(), d);
        return o;
      };
      const double bytes = 4. * T * (16 * (z.C + z.N) + z.S + z.So),
                   flops = 2. * T * (28 * z.C * z.N + (2 * z.C + z.S) * (2 * z.N + z.So));
      const std::string size = fmt::format("{} {} + {} -> {} + {}", products, z.C, z.S, z.N, z.So);
      // The errors of y and dx against the same in f64.
      auto errors = [&](Tensor Operands::*result) {
        Operands o = operands(DType::f32, products), wide = operands(DType::f64, DType::f64);
        for (Operands* x : {&o, &wide}) {
          kernels::equi_linear_backward(ctx, x->y, x->y_s, x->x, x->s, *x->matrices, &x->dx, &x->ds, x->gradients,
                                        nullptr);
          kernels::equi_linear(ctx, x->x, x->s, *x->matrices, Tensor(), Tensor(), x->y, x->y_s);
        }
        return relative_error(o.*result, wide.*result);
      };
      run({.name = "equi_linear " + size,
           .dtype = products,
           .bytes = bytes,
           .flops = flops,
           .error = [&] { return errors(&Operands::y); },
           .tolerance = tolerance(products),
           .make = [&]() -> std::function<void()> {
             return [&ctx, o = operands(DType::f32, products)]() mutable {
               kernels::equi_linear(ctx, o.x, o.s, *o.matrices, Tensor(), Tensor(), o.y, o.y_s);
             };
           }});
      run({.name = "equi_linear_backward " + size,
           .dtype = products,
           .bytes = 2 * bytes,
           .flops = 2 * flops,
           .error = [&] { return errors(&Operands::dx); },
           .tolerance = tolerance(products),
           .make = [&]() -> std::function<void()> {
             return [&ctx, o = operands(DType::f32, products)]() mutable {
               kernels::equi_linear_backward(ctx, o.y, o.y_s, o.x, o.s, *o.matrices, &o.dx, &o.ds, o.gradients,
                                             nullptr);
             };
           }});
    }
});

}  // namespace
}  // namespace lightcone::bench

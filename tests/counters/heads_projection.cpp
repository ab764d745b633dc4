#include "kernels/heads_projection.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

// Products are cuBLASLt's and not counted.
TEST_CASE_FIXTURE(Operands, "counters: on the way to heads and from them channels move once") {
  const int64_t T = 100, G = 24, V = 2, S = 2;
  for (auto [Cv, Cs] : {std::pair<int64_t, int64_t>{4, 12}, {8, 32}})
    for (DType products : {DType::f64, DType::f32, DType::bf16}) {
      const DType dtype = products == DType::bf16 ? DType::f32 : products, sums = sum_dtype(products);
      const Tensor v = normal({T, 4, V}, dtype), s = normal({T, S}, dtype),
                   heads = normal({G, T, 4 * Cv + Cs}, products), rows = normal(heads.shape(), sums);
      auto weights = [&](int64_t out, int64_t in) { return kernels::Weights(normal({out, in}, dtype), products); };
      const kernels::Weights to_v = weights(G * Cv, V), to_s = weights(G * Cs, S), from_v = weights(V, G * Cv),
                             from_s = weights(S, G * Cs);
      for (const kernels::Weights* w : {&to_v, &to_s, &from_v, &from_s}) w->factor(ctx);
      const kernels::ProjectionWeights to{&to_v, &to_s, {}}, from{&from_v, &from_s, {}};
      const kernels::HeadGroups groups{G, G / 3, 2 * G / 3};
      Tensor y = ctx.empty(heads.shape(), products), dx = ctx.empty(heads.shape(), products),
             dv = ctx.empty(v.shape(), dtype), ds = ctx.empty(s.shape(), dtype), yv = ctx.empty(v.shape(), dtype),
             ys = ctx.empty(s.shape(), dtype);
      INFO(fmt::format("products {}, {} x {} groups of {} and {}", products, T, G, Cv, Cs));
      const Kernel all[] = {
          {"to", [&] { kernels::project_to_heads(ctx, v, s, to, false, groups, 1e-2, y); }, {rows, heads}},
          {"from", [&] { kernels::project_from_heads(ctx, heads, from, {}, {}, yv, ys); }, {heads, heads}},
          {"from, backward",
           [&] { kernels::project_from_heads_backward(ctx, v, s, heads, from, {.dx = &dx}); },
           {rows, heads}},
      };
      for (const Kernel& k : all) check_traffic(ctx, k);
    }
}

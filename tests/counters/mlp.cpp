#include "kernels/mlp.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

// Products are cuBLASLt's and not counted.
TEST_CASE_FIXTURE(Operands, "counters: between the products of mlp hidden values move once") {
  struct {
    DType weights, products;
    int64_t H;
  } kinds[] = {{DType::f64, DType::f64, 64},
               {DType::f32, DType::f32, 256},
               {DType::f32, DType::f32, 33},
               {DType::f32, DType::bf16, 256},
               {DType::bf16, DType::bf16, 256}};
  for (const auto& [dtype, products, H] : kinds) {
    const int64_t T = 500, K = 4;
    const Tensor x = normal({T, K}, products), dy = normal({T, K}, dtype), hidden = normal({T, H}, products),
                 sums = normal({T, H}, sum_dtype(products));
    const kernels::Weights w1(normal({H, K}, dtype), products), w2(normal({K, H}, dtype), products);
    w1.factor(ctx), w2.factor(ctx);
    Tensor pre = ctx.empty({T, H}, dtype), y = ctx.empty({T, K}, dtype), dx = ctx.empty({T, K}, products),
           dw1 = ctx.empty({H, K}, dtype), db1 = ctx.empty({H}, dtype), dw2 = ctx.empty({K, H}, dtype);
    const double most = H % 2 ? 1.3 : 1.2;  // blocks of 32 columns share sectors where rows are no multiples of one
    INFO(fmt::format("{}, products {}, {} x {}", dtype, products, T, H));
    check_traffic(ctx, {"mlp", [&] { kernels::mlp(ctx, x, w1, {}, w2, {}, dy, pre, y); }, {pre, hidden}, 1.2, most});
    check_traffic(ctx, {"backward",
                        [&] {
                          kernels::mlp_backward(ctx, dy, pre, x, w1, {}, w2,
                                                {.dx = &dx, .dw1 = &dw1, .db1 = &db1, .dw2 = &dw2});
                        },
                        {pre, sums, hidden, hidden},
                        1.2,
                        most});
  }
}

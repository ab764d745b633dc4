#include "kernels/elementwise.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: elementwise kernels move their operands once, in whole sectors") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16})
    for (int64_t n : {65536, 65537}) {
      const Tensor a = normal({n}, dtype), b = normal({n}, dtype);
      Tensor y = ctx.empty({n}, dtype), other = ctx.empty({n}, dtype == DType::f32 ? DType::bf16 : DType::f32);
      using kernels::Unary;
      const Kernel all[] = {
          {"add", [&] { kernels::add(ctx, a, b, y); }, {a, b, y}},
          {"scale", [&] { kernels::scale(ctx, a, 2, y); }, {a, y}},
          {"gelu", [&] { kernels::unary(ctx, Unary::gelu, a, y); }, {a, y}},
          {"gelu backward", [&] { kernels::unary_backward(ctx, Unary::gelu, a, b, y); }, {a, b, y}},
          {"cast", [&] { kernels::cast(ctx, a, other); }, {a, other}},
      };
      for (const Kernel& k : all) {
        INFO(fmt::format("{}, {} elements", dtype, n));
        check_traffic(ctx, k);
        if (n % 2) continue;
        const Counts c = count(ctx, k.run);
        CHECK(32 * (c.load_sectors + c.store_sectors) == bytes(k.operands));
      }
    }
}

TEST_CASE_FIXTURE(Operands, "counters: rows and columns move once") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const int64_t T = 700;
    const Tensor x = normal({T, 128}, dtype), row = normal({128}, dtype), dy = normal({T, 96}, dtype);
    Tensor y = ctx.empty({T, 128}, dtype), left = ctx.empty({T, 96}, dtype), right = ctx.empty({T, 32}, dtype);
    const std::vector<Tensor> parts = {left, right};
    const Kernel all[] = {
        {"add_row", [&] { kernels::add_row(ctx, x, row, y); }, {x, row, y}},
        {"slice", [&] { kernels::slice(ctx, x, 32, left); }, {left, left}},
        {"slice backward", [&] { kernels::slice_backward(ctx, dy, 32, y); }, {dy, dy}},
        {"slice", [&] { kernels::slice(ctx, x, 0, right); }, {right, right}},
        {"concat", [&] { kernels::concat(ctx, parts, y); }, {left, right, y}},
    };
    for (const Kernel& k : all) {
      INFO(fmt::format("{}", dtype));
      check_traffic(ctx, k);
    }
  }
}

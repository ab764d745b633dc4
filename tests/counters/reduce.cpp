#include "kernels/reduce.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: sums and largest elements read their operand once") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const int64_t T = 700;
    const Tensor x = normal({T, 128}, dtype);
    Tensor y = ctx.empty({T, 128}, dtype), sums = ctx.empty({T}, dtype), columns = ctx.empty({128}, dtype);
    const Kernel all[] = {
        {"sum of rows", [&] { kernels::sum(ctx, x, kernels::Over::last, 1, sums); }, {x, sums}},
        {"sum of rows backward", [&] { kernels::sum_backward(ctx, sums, kernels::Over::last, 1, y); }, {sums, y}},
        {"sum of columns", [&] { kernels::sum(ctx, x, kernels::Over::leading, 1, columns); }, {x, columns}},
        {"largest of rows", [&] { kernels::max_last(ctx, x, sums); }, {x, sums}},
    };
    for (const Kernel& k : all) {
      INFO(fmt::format("{}", dtype));
      check_traffic(ctx, k);
    }
  }
}

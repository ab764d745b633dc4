#include "kernels/softmax.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: softmax reads and writes a row once") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16})
    for (int64_t C : {64, 1000}) {
      const Tensor x = normal({300, C}, dtype), dy = normal({300, C}, dtype);
      Tensor y = ctx.empty({300, C}, dtype), dx = ctx.empty({300, C}, dtype);
      const Kernel all[] = {
          {"softmax", [&] { kernels::softmax(ctx, x, y); }, {x, y}},
          {"softmax backward", [&] { kernels::softmax_backward(ctx, dy, y, dx); }, {dy, y, dx}},
          {"log softmax", [&] { kernels::log_softmax(ctx, x, y); }, {x, y}},
          {"log softmax backward", [&] { kernels::log_softmax_backward(ctx, dy, y, dx); }, {dy, y, dx}},
      };
      for (const Kernel& k : all) {
        INFO(fmt::format("{}, {} columns", dtype, C));
        check_traffic(ctx, k);
      }
    }
}

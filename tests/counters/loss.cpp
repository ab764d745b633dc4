#include "kernels/loss.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: losses read their operands once") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const int64_t n = 9000, B = 500, C = 10;
    const Tensor x = normal({n}, dtype), t = normal({n}, dtype), dloss = normal({1}, sum_dtype(dtype)),
                 logits = normal({B, C}, dtype), labels = ctx.zeros({B}, DType::i64);
    Tensor loss = ctx.empty({1}, sum_dtype(dtype)), dx = ctx.empty({n}, dtype), dlogits = ctx.empty({B, C}, dtype);
    const Kernel all[] = {
        {"bce", [&] { kernels::bce_with_logits(ctx, x, t, loss); }, {x, t, loss}},
        {"bce backward", [&] { kernels::bce_with_logits_backward(ctx, dloss, x, t, dx); }, {dloss, x, t, dx}},
        {"mse", [&] { kernels::mse(ctx, x, t, loss); }, {x, t, loss}},
        {"mse backward", [&] { kernels::mse_backward(ctx, dloss, x, t, dx); }, {dloss, x, t, dx}},
        {"cross entropy", [&] { kernels::cross_entropy(ctx, logits, labels, loss); }, {logits, labels, loss}},
        {"cross entropy backward",
         [&] { kernels::cross_entropy_backward(ctx, dloss, logits, labels, dlogits); },
         {dloss, logits, labels, dlogits}},
    };
    for (const Kernel& k : all) {
      INFO(fmt::format("{}", dtype));
      check_traffic(ctx, k);
    }
  }
}

#include "kernels/optimizer.h"
#include "tests/counters/counts.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE_FIXTURE(Operands, "counters: an optimiser's step is one launch that moves each tensor once") {
  for (DType dtype : {DType::f64, DType::f32}) {
    std::vector<Tensor> values, gradients, m, v, slow;
    std::vector<kernels::ParameterStep> steps;
    for (int64_t i = 0; i < 100; ++i) {
      const Shape shape = i % 4 ? Shape{128} : Shape{40, 128};
      values.push_back(normal(shape, dtype));
      gradients.push_back(normal(shape, dtype));
      m.push_back(normal(shape, dtype));
      v.push_back(ctx.zeros(shape, dtype));
      slow.push_back(normal(shape, dtype));
      steps.push_back({values.back(), gradients.back(), m.back(), v.back(), 1, 1e-3, 0.1});
    }
    Tensor norm = ctx.empty({1}, DType::f64);
    kernels::gradient_norm(ctx, gradients, norm);
    auto all = [](std::vector<std::vector<Tensor>> lists) {
      std::vector<Tensor> out;
      for (const auto& list : lists) out.insert(out.end(), list.begin(), list.end());
      return out;
    };
    using kernels::UpdateRule;
    const Kernel kernels_[] = {
        {"adamw", [&] { kernels::optimizer_step(ctx, UpdateRule::adamw, steps, {}); },
         all({values, gradients, m, v, values, m, v})},
        {"lion", [&] { kernels::optimizer_step(ctx, UpdateRule::lion, steps, {}); },
         all({values, gradients, m, values, m})},
        {"lookahead", [&] { kernels::lookahead(ctx, values, slow, 0.5); }, all({values, slow, values, slow})},
        {"ema", [&] { kernels::ema_update(ctx, values, slow, 0.5); }, all({values, slow, slow})},
        {"clip by value", [&] { kernels::clip_by_value(ctx, gradients, 1); }, all({gradients, gradients})},
        {"clip by norm", [&] { kernels::clip_by_norm(ctx, gradients, 1e-3, norm); }, all({gradients, gradients})},
        {"gradient norm", [&] { kernels::gradient_norm(ctx, gradients, norm); }, gradients},
    };
    for (const Kernel& k : kernels_) {
      INFO(fmt::format("{}", dtype));
      check_traffic(ctx, k);
      CHECK(count(ctx, k.run).launches == (k.name == "gradient norm" ? 2 : 1));
    }
    kernels::gradient_norm(ctx, gradients, norm);
    CHECK(count(ctx, [&] { kernels::clip_by_norm(ctx, gradients, 1e9, norm); }).dram_written == 0);
  }
}

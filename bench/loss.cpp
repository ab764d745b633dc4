#include "kernels/loss.h"

#include <cmath>

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

const Family loss([](Runner& run) {
  Context& ctx = run.context();
  const int64_t B = 1 << 20, rows = 1 << 16, classes = 10;
  const DType dtype = DType::f32;
  run({.name = fmt::format("bce_with_logits f32 {}", Shape{B}),
       .bytes = 2. * B * sizeof(float),
       .error =
           [&] {
             const Tensor x = run.normal({B}, dtype, 1), t = ctx.zeros({B}, dtype);
             Tensor y = run.empty({1}, dtype);
             kernels::bce_with_logits(ctx, x, t, y);
             double mean = 0;
             for (float v : x.span<float>()) mean += std::log1p(std::exp(static_cast<double>(v))) / B;
             return std::abs(y.item() / mean - 1);
           },
       .tolerance = tolerance(dtype),
       .make = [&]() -> std::function<void()> {
         return [x = run.normal({B}, dtype, 1), t = ctx.zeros({B}, dtype), y = run.empty({1}, dtype), &ctx]() mutable {
           kernels::bce_with_logits(ctx, x, t, y);
         };
       }});
  run({.name = fmt::format("cross_entropy f32 {}", Shape{rows, classes}),
       .bytes = 1. * rows * classes * sizeof(float),
       .error =
           [&] {
             const Tensor x = run.normal({rows, classes}, dtype, 1), labels = ctx.zeros({rows}, DType::i64);
             Tensor y = run.empty({1}, dtype);
             kernels::cross_entropy(ctx, x, labels, y);
             double mean = 0;
             for (int64_t b = 0; b < rows; ++b) {
               const float* row = x.data<float>() + b * classes;
               double sum = 0;
               for (int64_t c = 0; c < classes; ++c) sum += std::exp(static_cast<double>(row[c]));
               mean += (std::log(sum) - row[0]) / rows;
             }
             return std::abs(y.item() / mean - 1);
           },
       .tolerance = tolerance(dtype),
       .make = [&]() -> std::function<void()> {
         return [x = run.normal({rows, classes}, dtype, 1), labels = ctx.zeros({rows}, DType::i64),
                 y = run.empty({1}, dtype), &ctx]() mutable { kernels::cross_entropy(ctx, x, labels, y); };
       }});
});

}  // namespace
}  // namespace lightcone::bench

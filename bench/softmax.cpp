#include "kernels/softmax.h"

#include <cmath>

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

const Family softmax([](Runner& run) {
  Context& ctx = run.context();
  struct Size {
    DType dtype;
    Shape shape;
  };
  for (auto [dtype, shape] :
       {Size{DType::f32, {7000, 128}}, Size{DType::bf16, {7000, 128}}, Size{DType::f32, {1 << 16, 10}}}) {
    const int64_t T = shape[0], C = shape[1];
    auto one = [&run, dtype, shape] { return std::vector{run.normal(shape, dtype, 1)}; };
    run({.name = fmt::format("softmax {} {}", dtype, shape),
         .dtype = dtype,
         .shape = shape,
         .operands = one,
         .kernel = [&](auto& x, Tensor& y) { kernels::softmax(ctx, x[0], y); },
         .naive =
             [&](const auto& x, auto& y) {
               for (int64_t t = 0; t < T; ++t) {
                 double sum = 0;
                 for (int64_t c = 0; c < C; ++c) sum += std::exp(x[0][t * C + c]);
                 for (int64_t c = 0; c < C; ++c) y[t * C + c] = std::exp(x[0][t * C + c]) / sum;
               }
             }});
    run({.name = fmt::format("log_softmax {} {}", dtype, shape),
         .dtype = dtype,
         .shape = shape,
         .operands = one,
         .kernel = [&](auto& x, Tensor& y) { kernels::log_softmax(ctx, x[0], y); },
         .naive =
             [&](const auto& x, auto& y) {
               for (int64_t t = 0; t < T; ++t) {
                 double sum = 0;
                 for (int64_t c = 0; c < C; ++c) sum += std::exp(x[0][t * C + c]);
                 for (int64_t c = 0; c < C; ++c) y[t * C + c] = x[0][t * C + c] - std::log(sum);
               }
             }});
    // Reads dy and y, any numbers.
    auto two = [&run, dtype, shape] { return std::vector{run.normal(shape, dtype, 1), run.normal(shape, dtype, 2)}; };
    run({.name = fmt::format("softmax_backward {} {}", dtype, shape),
         .dtype = dtype,
         .shape = shape,
         .operands = two,
         .kernel = [&](auto& x, Tensor& dx) { kernels::softmax_backward(ctx, x[0], x[1], dx); },
         .naive =
             [&](const auto& x, auto& dx) {
               for (int64_t t = 0; t < T; ++t) {
                 double sum = 0;
                 for (int64_t i = t * C; i < (t + 1) * C; ++i) sum += x[0][i] * x[1][i];
                 for (int64_t i = t * C; i < (t + 1) * C; ++i) dx[i] = x[1][i] * (x[0][i] - sum);
               }
             }});
    run({.name = fmt::format("log_softmax_backward {} {}", dtype, shape),
         .dtype = dtype,
         .shape = shape,
         .operands = two,
         .kernel = [&](auto& x, Tensor& dx) { kernels::log_softmax_backward(ctx, x[0], x[1], dx); },
         .naive =
             [&](const auto& x, auto& dx) {
               for (int64_t t = 0; t < T; ++t) {
                 double sum = 0;
                 for (int64_t i = t * C; i < (t + 1) * C; ++i) sum += x[0][i];
                 for (int64_t i = t * C; i < (t + 1) * C; ++i) dx[i] = x[0][i] - std::exp(x[1][i]) * sum;
               }
             }});
  }
});

}  // namespace
}  // namespace lightcone::bench

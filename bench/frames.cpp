#include "kernels/frames.h"

#include "bench/harness.h"

namespace lightcone::bench {
namespace {

using namespace kernels;

// The inverse of a frame is g L^T g, whatever its numbers.
double sign(int64_t a, int64_t b) { return (a == 0) == (b == 0) ? 1 : -1; }

const Family frames([](Runner& run) {
  Context& ctx = run.context();
  const TensorReps reps("8x0n+2x1n");
  const int64_t T = 7000, heads = 8, dim = reps.dim(), columns = heads * dim;
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    auto operands = [&] {
      return std::vector{run.normal({T, columns}, dtype, 1), run.normal({T, 4, 4}, sum_dtype(dtype), 2)};
    };
    run({.name = fmt::format("frames_transform {} {} x {}", dtype, heads, reps.text()),
         .dtype = dtype,
         .shape = {T, columns},
         .operands = operands,
         .kernel = [&](auto& x, Tensor& y) { frames_transform(ctx, x[0], x[1], reps, FrameMap::to_global, y); },
         .naive =
             [&](const auto& x, auto& y) {
               for (int64_t i = 0; i < T * columns; ++i) {
                 const int64_t t = i / columns, feature = i % dim, mu = feature % 4;
                 if (feature < 8) {
                   y[i] = x[0][i];
                   continue;
                 }
                 for (int64_t nu = 0; nu < 4; ++nu)
                   y[i] += sign(mu, nu) * x[1][16 * t + 4 * nu + mu] * x[0][i - mu + nu];
               }
             },
         .flops = 28. * T * heads * 2});
    run({.name = fmt::format("frames_gradient {} {} x {}", dtype, heads, reps.text()),
         .dtype = sum_dtype(dtype),
         .shape = {T, 4, 4},
         .operands =
             [&] {
               return std::vector{run.normal({T, columns}, dtype, 1), run.normal({T, 4, 4}, sum_dtype(dtype), 2),
                                  run.normal({T, columns}, dtype, 3)};
             },
         .kernel =
             [&](auto& x, Tensor& y) {
               const FramedFeatures features{x[0], x[2], 0, 0, heads, true};
               frames_gradient(ctx, {&features, 1}, x[1], reps, y);
             },
         .naive =
             [&](const auto& x, auto& y) {
               // P g L g with P = sum of dx x^T.
               for (int64_t t = 0; t < T; ++t)
                 for (int64_t head = 0; head < heads; ++head)
                   for (int64_t vector : {8, 12}) {
                     const int64_t at = t * columns + head * dim + vector;
                     for (int64_t i = 0; i < 64; ++i) {
                       const int64_t mu = i / 16, nu = i / 4 % 4, to = i % 4;
                       y[16 * t + 4 * mu + to] +=
                           x[2][at + mu] * x[0][at + nu] * sign(nu, to) * x[1][16 * t + 4 * nu + to];
                     }
                   }
             },
         .flops = 32. * T * heads * 2});
  }
});

}  // namespace
}  // namespace lightcone::bench

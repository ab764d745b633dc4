#include "kernels/jet_features.h"

#include <algorithm>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

const Family jet_features([](Runner& run) {
  Context& ctx = run.context();
  const auto all = kernels::TaggingFeatures::all;
  const int64_t T = 7000, F = 7;
  for (DType dtype : {DType::f64, DType::f32}) {
    auto pair = [&run, dtype] { return std::vector{momenta(run, T, dtype, 1), momenta(run, T, dtype, 2)}; };
    run({.name = fmt::format("jet_features {} {}", dtype, Shape{T, F}),
         .dtype = DType::f32,
         .shape = {T, F},
         .operands = pair,
         .kernel = [&](auto& x, Tensor& y) { kernels::jet_features(ctx, all, x[0], x[1], y); },
         .naive =
             [&](const auto& x, auto& y) {
               for (int64_t t = 0; t < T; ++t) naive_jet_features(&x[0][4 * t], &x[1][4 * t], &y[F * t]);
             }});
    run({.name = fmt::format("jet_features_backward {} {}", dtype, Shape{T, F}),
         .dtype = dtype,
         .shape = {T, 4},
         .operands =
             [&run, pair] {
               auto x = pair();
               x.push_back(run.normal({T, F}, DType::f32, 3));          // dy
               x.push_back(run.context().zeros({T, 4}, x[0].dtype()));  // djet
               return x;
             },
         .kernel = [&](auto& x, Tensor& dp) { kernels::jet_features_backward(ctx, all, x[2], x[0], x[1], &dp, &x[3]); },
         // By central differences; the tolerance is theirs.
         .naive =
             [&](const auto& x, auto& dp) {
               const double h = 1e-4;
               for (int64_t i = 0; i < T * 4; ++i) {
                 const int64_t t = i / 4;
                 double p[4], up[F], down[F];
                 std::copy_n(&x[0][4 * t], 4, p);
                 p[i % 4] += h;
                 naive_jet_features(p, &x[1][4 * t], up);
                 p[i % 4] -= 2 * h;
                 naive_jet_features(p, &x[1][4 * t], down);
                 for (int64_t c = 0; c < F; ++c) dp[i] += x[2][F * t + c] * (up[c] - down[c]) / (2 * h);
               }
             },
         .tolerance = 2e-5});
  }
});

}  // namespace
}  // namespace lightcone::bench

#include "kernels/pair_aggregations.h"

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

using kernels::Pool;
using Operands = std::vector<Tensor>;

// The pairs of 128 jets with their spurions, in a PELICAN that predicts vectors (16 channels) or scores (78).
void pairs(Runner& run, DType dtype, int64_t C, int64_t B, int64_t mean) {
  Context& ctx = run.context();
  const std::vector<double> offsets = jet_offsets(B, mean);
  const auto T = static_cast<int64_t>(offsets.back());
  const Tensor ptr = ctx.of({B + 1}, DType::i32, offsets);
  const int64_t E = kernels::count_all_pairs(ptr);
  // f(jet, constituents, i, j, row of (i, j), row of (j, i), channel)
  auto each = [&](auto f) {
    int64_t pair = 0;
    for (int64_t b = 0; b < B; ++b) {
      const auto first = static_cast<int64_t>(offsets[b]), n = static_cast<int64_t>(offsets[b + 1]) - first;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < n; ++j)
          for (int64_t c = 0; c < C; ++c) f(b, n, first + i, first + j, pair + i * n + j, pair + j * n + i, c);
      pair += n * n;
    }
  };
  auto name = [&](const char* operation) { return fmt::format("{} {} {}", operation, dtype, Shape{E, C}); };
  run({.name = name("pair_pool"),
       .dtype = dtype,
       .shape = {T, 3 * C},
       .operands =
           [&] {
             return Operands{run.normal({E, C}, dtype, 1), ptr, run.empty({B, 2 * C}, dtype)};
           },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::pair_pool(ctx, x[0], x[1], Pool::mean, y, x[2]); },
       .naive =
           [&](const auto& x, auto& y) {
             each([&](int64_t, int64_t n, int64_t i, int64_t j, int64_t ij, int64_t, int64_t c) {
               y[(3 * i) * C + c] += x[0][ij * C + c] / n;
               y[(3 * j + 1) * C + c] += x[0][ij * C + c] / n;
               if (i == j) y[(3 * i + 2) * C + c] = x[0][ij * C + c];
             });
           },
       .flops = 2. * E * C});
  run({.name = name("pair_pool_backward"),
       .dtype = dtype,
       .shape = {E, C},
       .operands =
           [&] {
             return Operands{run.normal({T, 3 * C}, dtype, 1), run.normal({B, 2 * C}, dtype, 2), ptr,
                             run.normal({E, C}, dtype, 3)};
           },
       .kernel = [&ctx](auto& x,
                        Tensor& dx) { kernels::pair_pool_backward(ctx, x[0], x[1], x[2], Pool::mean, x[3], dx); },
       .naive =
           [&](const auto& x, auto& dx) {
             each([&](int64_t b, int64_t n, int64_t i, int64_t j, int64_t ij, int64_t, int64_t c) {
               dx[ij * C + c] = x[3][ij * C + c] + x[0][3 * i * C + c] / n + x[0][(3 * j + 1) * C + c] / n +
                                x[1][2 * b * C + c] / (n * n);
               if (i == j) dx[ij * C + c] += x[0][(3 * i + 2) * C + c] + x[1][(2 * b + 1) * C + c] / (n * n);
             });
           },
       .flops = 2. * E * C});
  run({.name = name("pair_combine"),
       .dtype = dtype,
       .shape = {E, C},
       .operands =
           [&] {
             return Operands{run.normal({E, 2 * C}, dtype, 1), run.normal({T, 3 * C}, dtype, 2), ptr};
           },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::pair_combine(ctx, x[0], x[1], x[2], y); },
       .naive =
           [&](const auto& x, auto& y) {
             each([&](int64_t, int64_t, int64_t i, int64_t j, int64_t ij, int64_t ji, int64_t c) {
               y[ij * C + c] = x[0][2 * ij * C + c] + x[0][(2 * ji + 1) * C + c] + x[1][3 * i * C + c] +
                               x[1][(3 * j + 1) * C + c] + (i == j ? x[1][(3 * i + 2) * C + c] : 0);
             });
           },
       .flops = 3. * E * C});
  run({.name = name("pair_combine_backward"),
       .dtype = dtype,
       .shape = {E, 2 * C},
       .operands =
           [&] {
             return Operands{run.normal({E, C}, dtype, 1), ptr, run.empty({T, 3 * C}, dtype)};
           },
       .kernel = [&ctx](auto& x, Tensor& dab) { kernels::pair_combine_backward(ctx, x[0], x[1], &dab, &x[2]); },
       .naive =
           [&](const auto& x, auto& dab) {
             each([&](int64_t, int64_t, int64_t, int64_t, int64_t ij, int64_t ji, int64_t c) {
               dab[2 * ij * C + c] = x[0][ij * C + c];
               dab[(2 * ij + 1) * C + c] = x[0][ji * C + c];
             });
           },
       .flops = 2. * E * C});
}

// The matrices of a block of the tagging network, from factorised coefficients.
void matrices(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t in = 78, out = 132, M = 15;
  const std::vector<kernels::MatrixOfMaps> layout = {{2, 1, {0, 1}}};
  run({.name = fmt::format("aggregation_matrices {} {}", dtype, Shape{out, in, M}),
       .dtype = dtype,
       .shape = {2 * out, in},
       .operands =
           [&] {
             return Operands{run.normal({in, M}, dtype, 1), run.normal({out, M}, dtype, 2),
                             run.normal({in, out}, dtype, 3), run.normal({in, out}, dtype, 4)};
           },
       .kernel =
           [&ctx, layout](auto& x, Tensor& y) {
             kernels::AggregationCoefficients k;
             k.c00 = x[0], k.c01 = x[1], k.c10 = x[2], k.c11 = x[3];
             std::vector<Tensor> to{y};
             kernels::aggregation_matrices(ctx, k, layout, to);
           },
       .naive =
           [&](const auto& x, auto& y) {
             for (int64_t m = 0; m < 2; ++m)
               for (int64_t e = 0; e < in * out; ++e)
                 y[m * in * out + e] = x[0][e / out * M + m] * x[2][e] + x[1][e % out * M + m] * x[3][e];
           },
       .flops = 3. * 2 * in * out});
}

const Family pair_aggregations([](Runner& run) {
  for (DType dtype : {DType::f32, DType::f64}) pairs(run, dtype, 16, 128, 58);
  pairs(run, DType::f32, 78, 32, 58);
  matrices(run, DType::f32);
});

}  // namespace
}  // namespace lightcone::bench

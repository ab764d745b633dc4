#include "kernels/pair_vectors.h"

#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

using Operands = std::vector<Tensor>;

double square(const double* p) { return p[0] * p[0] - p[1] * p[1] - p[2] * p[2] - p[3] * p[3]; }

// 128 jets with their spurions, three vectors.
void pair_vectors_cases(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t B = 128, n = 3, D = 20;
  const std::vector<double> offsets = jet_offsets(B, 58);
  const auto T = static_cast<int64_t>(offsets.back());
  const Tensor ptr = ctx.of({B + 1}, DType::i32, offsets);
  const int64_t E = kernels::count_all_pairs(ptr);
  // f(sender, receiver, pair)
  auto each = [&](auto f) {
    int64_t pair = 0;
    for (int64_t b = 0; b < B; ++b)
      for (auto i = static_cast<int64_t>(offsets[b]); i < static_cast<int64_t>(offsets[b + 1]); ++i)
        for (auto j = static_cast<int64_t>(offsets[b]); j < static_cast<int64_t>(offsets[b + 1]); ++j) f(i, j, pair++);
  };
  auto name = [&](const char* operation) { return fmt::format("{} {} {}", operation, dtype, Shape{E, n}); };
  const double flops = static_cast<double>(E * n);

  run({.name = fmt::format("pair_masses {} {}", dtype, Shape{E, 1}),
       .dtype = dtype,
       .shape = {E, 1},
       .operands =
           [&] {
             return Operands{momenta(run, T, DType::f64, 1), ptr};
           },
       .kernel = [&ctx](auto& x, Tensor& e) { kernels::pair_masses(ctx, x[0], x[1], 6, 1.5, e); },
       .naive =
           [&](const auto& x, auto& e) {
             each([&](int64_t i, int64_t j, int64_t ij) {
               double s[4];
               for (int c = 0; c < 4; ++c) s[c] = x[0][4 * i + c] + x[0][4 * j + c];
               e[ij] = (std::log(square(s)) - 6) / 1.5;
             });
           },
       .flops = 14. * E});
  run({.name = name("pair_products"),
       .dtype = dtype,
       .shape = {E, n},
       .operands =
           [&] {
             return Operands{run.normal({T, n * D}, dtype, 1), run.normal({T, n * D}, dtype, 2), ptr};
           },
       .kernel = [&ctx](auto& x, Tensor& y) { kernels::pair_products(ctx, x[0], x[1], x[2], y); },
       .naive =
           [&](const auto& x, auto& y) {
             each([&](int64_t i, int64_t j, int64_t ij) {
               for (int64_t m = 0; m < n * D; ++m) y[ij * n + m / D] += x[0][i * n * D + m] * x[1][j * n * D + m];
             });
           },
       .flops = 2 * D * flops});
  run({.name = name("pair_products_backward"),
       .dtype = dtype,
       .shape = {T, n * D},
       .operands =
           [&] {
             return Operands{run.normal({E, n}, dtype, 3), run.normal({T, n * D}, dtype, 1),
                             run.normal({T, n * D}, dtype, 2), ptr, run.empty({T, n * D}, dtype)};
           },
       .kernel = [&ctx](auto& x,
                        Tensor& dq) { kernels::pair_products_backward(ctx, x[0], x[1], x[2], x[3], &dq, &x[4]); },
       .naive =
           [&](const auto& x, auto& dq) {
             each([&](int64_t i, int64_t j, int64_t ij) {
               for (int64_t m = 0; m < n * D; ++m) dq[i * n * D + m] += x[0][ij * n + m / D] * x[2][j * n * D + m];
             });
           },
       .flops = 4 * D * flops});

  // Without layer norm, whose length would hide the sums.
  const kernels::PairVectorsOptions options{.layer_norm = false};
  auto naive = [&](const std::vector<double>& p, const std::vector<double>& logits, auto&& f) {
    std::vector<double> sum(T * n);
    each([&](int64_t, int64_t j, int64_t ij) {
      for (int64_t k = 0; k < n; ++k) sum[j * n + k] += std::exp(logits[ij * n + k]);
    });
    each([&](int64_t i, int64_t j, int64_t ij) {
      double q[4];
      for (int c = 0; c < 4; ++c) q[c] = p[4 * i + c] + p[4 * j + c];
      const double norm = std::sqrt(std::abs(square(q)));
      for (int64_t k = 0; k < n; ++k) f(j, ij, k, std::exp(logits[ij * n + k]) / sum[j * n + k], q, norm);
    });
  };
  run({.name = name("pair_vectors"),
       .dtype = DType::f64,
       .shape = {T, n, 4},
       .operands =
           [&] {
             return Operands{momenta(run, T, DType::f64, 1), run.normal({E, n}, dtype, 2), ptr,
                             run.empty({T}, DType::f64)};
           },
       .kernel = [&ctx, options](auto& x,
                                 Tensor& y) { kernels::pair_vectors(ctx, x[0], x[1], x[2], options, y, x[3]); },
       .naive =
           [&](const auto& x, auto& y) {
             naive(x[0], x[1], [&](int64_t j, int64_t, int64_t k, double w, const double* q, double norm) {
               for (int c = 0; c < 4; ++c) y[(j * n + k) * 4 + c] += w * q[c] / norm;
             });
           },
       .flops = 20 * flops,
       .tolerance = 1e-9});  // differences of large numbers in the norms
  run({.name = name("pair_vectors_backward"),
       .dtype = dtype,
       .shape = {E, n},
       .operands =
           [&] {
             Operands o{
                 momenta(run, T, DType::f64, 1),   run.normal({E, n}, dtype, 2), ptr,
                 run.empty({T, n, 4}, DType::f64), run.empty({T}, DType::f64),   run.normal({T, n, 4}, DType::f64, 3)};
             kernels::pair_vectors(ctx, o[0], o[1], o[2], options, o[3], o[4]);
             return o;
           },
       .kernel =
           [&ctx, options](auto& x, Tensor& dlogits) {
             kernels::pair_vectors_backward(ctx, x[5], x[0], x[1], x[2], options, x[3], x[4], &dlogits, nullptr);
           },
       .naive =
           [&](const auto& x, auto& dlogits) {
             std::vector<double> mean(T * n);
             auto slope = [&](int64_t j, int64_t k, const double* q, double norm) {
               double d = 0;
               for (int c = 0; c < 4; ++c) d += x[5][(j * n + k) * 4 + c] * q[c] / norm;
               return d;
             };
             naive(x[0], x[1], [&](int64_t j, int64_t, int64_t k, double w, const double* q, double norm) {
               mean[j * n + k] += w * slope(j, k, q, norm);
             });
             naive(x[0], x[1], [&](int64_t j, int64_t ij, int64_t k, double w, const double* q, double norm) {
               dlogits[ij * n + k] = w * (slope(j, k, q, norm) - mean[j * n + k]);
             });
           },
       .flops = 40 * flops,
       .tolerance = dtype == DType::f64 ? 1e-9 : 0});
}

const Family pair_vectors([](Runner& run) {
  for (DType dtype : {DType::f32, DType::f64}) pair_vectors_cases(run, dtype);
});

}  // namespace
}  // namespace lightcone::bench

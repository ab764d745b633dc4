#include "kernels/orthonormal.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

using Operands = std::vector<Tensor>;
using Vec = std::array<double, 4>;
constexpr int64_t T = 7000;

double inner(const Vec& a, const Vec& b) { return a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3]; }
Vec plus(Vec a, double s, const Vec& b) {
  for (int i = 0; i < 4; ++i) a[i] += s * b[i];
  return a;
}
Vec unit(const Vec& v) { return plus({}, 1 / std::sqrt(std::abs(inner(v, v))), v); }

// Three orthonormal vectors by the method of Gram and Schmidt, and the last one from minors.
void orthonormalise(Vec (&e)[4]) {
  e[0] = unit(e[0]);
  e[1] = unit(plus(e[1], -inner(e[1], e[0]), e[0]));
  e[2] = unit(plus(plus(e[2], -inner(e[2], e[0]), e[0]), inner(e[2], e[1]), e[1]));
  for (int n = 0; n < 4; ++n) {
    int m[3];
    for (int i = 0, k = 0; i < 4; ++i)
      if (i != n) m[k++] = i;
    double det = 0;
    for (int k = 0; k < 3; ++k)
      det += e[0][m[k]] * (e[1][m[(k + 1) % 3]] * e[2][m[(k + 2) % 3]] - e[1][m[(k + 2) % 3]] * e[2][m[(k + 1) % 3]]);
    e[3][n] = n == 2 ? -det : det;
  }
}

// From 12 numbers, a particle's three vectors, to its frame.
void naive_frames(const double* v, double* L) {
  Vec e[4] = {{v[0], v[1], v[2], v[3]}, {v[4], v[5], v[6], v[7]}, {v[8], v[9], v[10], v[11]}};
  orthonormalise(e);
  for (int i = 0; i < 16; ++i) L[i] = (i < 4 ? 1 : -1) * (i % 4 ? -1 : 1) * e[i / 4][i % 4];
}
void naive_polar(const double* p, double* L) {
  const double m = std::sqrt(inner({p[0], p[1], p[2], p[3]}, {p[0], p[1], p[2], p[3]}));
  double B[16];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      B[4 * i + j] = i && j ? (i == j) + p[i] * p[j] / (m * (p[0] + m)) : (i || j ? -1 : 1) * p[i + j] / m;
  // In the rest frame, after the time axis.
  Vec e[4] = {{1}};
  for (int i = 1; i < 4; ++i)
    for (int j = 0; j < 4; ++j) e[1][i] += B[4 * i + j] * p[4 + j], e[2][i] += B[4 * i + j] * p[8 + j];
  orthonormalise(e);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      L[4 * i + j] = 0;
      for (int k = 0; k < 4; ++k) L[4 * i + j] += e[i][k] * B[4 * k + j];
    }
}
void naive_clamp(const double* p, double* y) {
  const double length = std::hypot(p[1], p[2], p[3]), m = std::sqrt(p[0] * p[0] - length * length);
  const double gamma = std::max(1., 3 - std::log1p(std::exp(10 * (3 - p[0] / m))) / 10);
  y[0] = m * gamma;
  for (int i = 1; i < 4; ++i) y[i] = m * std::sqrt(gamma * gamma - 1) * p[i] / length;
}

// A function of every particle's `inputs` numbers, and its gradient by central differences.
struct Naive {
  void (*f)(const double* x, double* y);
  int64_t inputs, outputs;
  void operator()(const std::vector<double>& x, std::vector<double>& y) const {
    for (int64_t t = 0; t < T; ++t) f(&x[inputs * t], &y[outputs * t]);
  }
  void backward(const std::vector<double>& x, const std::vector<double>& dy, std::vector<double>& dx) const {
    std::vector<double> in(inputs), out(outputs);
    for (int64_t i = 0; i < T * inputs; ++i) {
      const int64_t t = i / inputs;
      const double h = 1e-6 * x[i / 4 * 4];
      for (double step : {h, -h}) {
        std::copy_n(&x[t * inputs], inputs, in.data());
        in[i % inputs] += step;
        f(in.data(), out.data());
        for (int64_t k = 0; k < outputs; ++k) dx[i] += dy[t * outputs + k] * out[k] / (2 * step);
      }
    }
  }
};
constexpr double tolerance_of_differences = 1e-6;

// Time-like vectors of moderate gamma: their frames are well conditioned.
Tensor vectors(Runner& run, Shape shape, uint64_t seed) {
  Tensor v = momenta(run, shape.numel() / 4, DType::f64, seed);
  for (int64_t i = 0; i < v.dim(0); ++i) v.data<double>()[4 * i] += 20;
  return v.reshape(shape);
}

void frames(Runner& run) {
  Context& ctx = run.context();
  const kernels::Orthonormalisation how = {.eps_norm = 1e-15, .eps_lightlike = 1e-16, .eps_dependent = 1e-16};
  const Naive naive = {naive_frames, 12, 16};
  Tensor counts = run.empty({3}, DType::i64);
  const Shape three = {T, 3, 4}, L = {T, 4, 4};
  run({.name = fmt::format("orthonormal_frames {}", three),
       .dtype = DType::f64,
       .shape = L,
       .operands = [&] { return Operands{vectors(run, three, 1)}; },
       .kernel = [&](auto& x, Tensor& y) { kernels::orthonormal_frames(ctx, how, {}, x[0], y, counts); },
       .naive = [&](const auto& x, auto& y) { naive(x[0], y); },
       .flops = 270. * T,
       .tolerance = 1e-9});
  run({.name = fmt::format("orthonormal_frames_backward {}", three),
       .dtype = DType::f64,
       .shape = three,
       .operands =
           [&] {
             return Operands{vectors(run, three, 1), run.normal(L, DType::f64, 2)};
           },
       .kernel = [&](auto& x, Tensor& y) { kernels::orthonormal_frames_backward(ctx, how, {}, x[1], x[0], y); },
       .naive = [&](const auto& x, auto& y) { naive.backward(x[0], x[1], y); },
       .flops = 700. * T,
       .tolerance = tolerance_of_differences});
}

void polar(Runner& run) {
  Context& ctx = run.context();
  const kernels::Orthonormalisation how = {.eps_norm = 1e-15, .eps_lightlike = 1e-16, .eps_dependent = 1e-16};
  const Naive naive = {naive_polar, 12, 16};
  Tensor counts = run.empty({3}, DType::i64), dboost = run.empty({T, 4}, DType::f64);
  const Shape two = {T, 2, 4}, L = {T, 4, 4};
  auto joined = [](const auto& x) {
    std::vector<double> all(12 * T);
    for (int64_t t = 0; t < T; ++t) std::copy_n(&x[1][8 * t], 8, std::copy_n(&x[0][4 * t], 4, &all[12 * t]));
    return all;
  };
  run({.name = fmt::format("polar_decomposition {}", two),
       .dtype = DType::f64,
       .shape = L,
       .operands =
           [&] {
             return Operands{vectors(run, {T, 4}, 1), vectors(run, two, 2)};
           },
       .kernel = [&](auto& x, Tensor& y) { kernels::polar_decomposition(ctx, how, {}, x[0], x[1], y, counts); },
       .naive = [&](const auto& x, auto& y) { naive(joined(x), y); },
       .flops = 180. * T,
       .tolerance = 1e-9});
  run({.name = fmt::format("polar_decomposition_backward {}", two),
       .dtype = DType::f64,
       .shape = two,
       .operands =
           [&] {
             return Operands{vectors(run, {T, 4}, 1), vectors(run, two, 2), run.normal(L, DType::f64, 3)};
           },
       .kernel = [&](auto& x,
                     Tensor& y) { kernels::polar_decomposition_backward(ctx, how, {}, x[2], x[0], x[1], &dboost, &y); },
       .naive =
           [&](const auto& x, auto& y) {
             std::vector<double> all(12 * T);
             naive.backward(joined(x), x[2], all);
             for (int64_t i = 0; i < 8 * T; ++i) y[i] = all[i / 8 * 12 + 4 + i % 8];
           },
       .flops = 430. * T,
       .tolerance = tolerance_of_differences});
}

void clamp(Runner& run) {
  Context& ctx = run.context();
  const Naive naive = {naive_clamp, 4, 4};
  run({.name = fmt::format("clamp_boost {}", Shape{T, 4}),
       .dtype = DType::f64,
       .shape = {T, 4},
       .operands =
           [&] {
             return Operands{vectors(run, {T, 4}, 1)};
           },
       .kernel = [&](auto& x, Tensor& y) { kernels::clamp_boost(ctx, 3, 10, x[0], y); },
       .naive = [&](const auto& x, auto& y) { naive(x[0], y); },
       .flops = 35. * T,
       .tolerance = 1e-9});
  run({.name = fmt::format("clamp_boost_backward {}", Shape{T, 4}),
       .dtype = DType::f64,
       .shape = {T, 4},
       .operands =
           [&] {
             return Operands{vectors(run, {T, 4}, 1), run.normal({T, 4}, DType::f64, 2)};
           },
       .kernel = [&](auto& x, Tensor& y) { kernels::clamp_boost_backward(ctx, 3, 10, x[1], x[0], y); },
       .naive = [&](const auto& x, auto& y) { naive.backward(x[0], x[1], y); },
       .flops = 75. * T,
       .tolerance = tolerance_of_differences});
}

const Family orthonormal([](Runner& run) {
  frames(run);
  polar(run);
  clamp(run);
});

}  // namespace
}  // namespace lightcone::bench

#include "kernels/minkowski.h"

#include <algorithm>
#include <cmath>

#include "bench/harness.h"
#include "bench/jets.h"

namespace lightcone::bench {
namespace {

using kernels::Kinematic;
using Operands = std::vector<Tensor>;

constexpr double metric[4] = {1, -1, -1, -1};

// The pairs of constituents of 128 jets.
void inner(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t N = 380'000;
  run({.name = fmt::format("minkowski_inner {} {}", dtype, Shape{N, 4}),
       .dtype = dtype,
       .shape = {N},
       .operands =
           [&] {
             return Operands{momenta(run, N, dtype, 1), momenta(run, N, dtype, 2)};
           },
       .kernel = [&](auto& x, Tensor& y) { kernels::minkowski_inner(ctx, x[0], x[1], y); },
       .naive =
           [&](const auto& x, auto& y) {
             for (int64_t i = 0; i < 4 * N; ++i) y[i / 4] += metric[i % 4] * x[0][i] * x[1][i];
           },
       .flops = 7. * N});
  run({.name = fmt::format("minkowski_inner_backward {} {}", dtype, Shape{N, 4}),
       .dtype = dtype,
       .shape = {N, 4},
       .operands =
           [&] {
             return Operands{run.normal({N}, dtype, 1), momenta(run, N, dtype, 2)};
           },
       .kernel = [&](auto& x, Tensor& da) { kernels::minkowski_inner_backward(ctx, x[0], x[1], da); },
       .naive =
           [&](const auto& x, auto& da) {
             for (int64_t i = 0; i < 4 * N; ++i) da[i] = metric[i % 4] * x[0][i / 4] * x[1][i];
           },
       .flops = 4. * N});
}

// A quantity of p = (E, px, py, pz), and its derivatives by the four.
struct Quantity {
  const char* name;
  Kinematic which;
  double (*value)(const double* p);
  void (*gradient)(const double* p, double* d);
};
double pt(const double* p) { return std::hypot(p[1], p[2]); }
double momentum(const double* p) { return std::hypot(p[1], p[2], p[3]); }
double mass(const double* p) { return std::sqrt((p[0] - momentum(p)) * (p[0] + momentum(p))); }
const Quantity quantities[] = {
    {"pt", Kinematic::pt, pt, [](const double* p, double* d) { d[1] = p[1] / pt(p), d[2] = p[2] / pt(p); }},
    {"phi", Kinematic::phi, [](const double* p) { return std::atan2(p[2], p[1]); },
     [](const double* p, double* d) { d[1] = -p[2] / (pt(p) * pt(p)), d[2] = p[1] / (pt(p) * pt(p)); }},
    {"eta", Kinematic::eta, [](const double* p) { return std::asinh(p[3] / pt(p)); },
     [](const double* p, double* d) {
       for (int i : {1, 2}) d[i] = -p[3] / momentum(p) * p[i] / (pt(p) * pt(p));
       d[3] = 1 / momentum(p);
     }},
    {"mass", Kinematic::mass, mass,
     [](const double* p, double* d) {
       for (int i = 0; i < 4; ++i) d[i] = metric[i] * p[i] / mass(p);
     }},
};

void kinematics(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t T = 7000;
  for (const Quantity& q : quantities) {
    run({.name = fmt::format("kinematic {} {} {}", q.name, dtype, Shape{T, 4}),
         .dtype = dtype,
         .shape = {T},
         .operands = [&] { return Operands{momenta(run, T, dtype, 1)}; },
         .kernel = [&](auto& x, Tensor& y) { kernels::kinematic(ctx, q.which, x[0], y); },
         .naive =
             [&](const auto& x, auto& y) {
               for (int64_t t = 0; t < T; ++t) y[t] = q.value(&x[0][4 * t]);
             }});
    run({.name = fmt::format("kinematic_backward {} {} {}", q.name, dtype, Shape{T, 4}),
         .dtype = dtype,
         .shape = {T, 4},
         .operands =
             [&] {
               return Operands{run.normal({T}, dtype, 1), momenta(run, T, dtype, 2)};
             },
         .kernel = [&](auto& x, Tensor& dp) { kernels::kinematic_backward(ctx, q.which, x[0], x[1], dp); },
         .naive =
             [&](const auto& x, auto& dp) {
               for (int64_t t = 0; t < T; ++t) q.gradient(&x[1][4 * t], &dp[4 * t]);
               for (int64_t i = 0; i < 4 * T; ++i) dp[i] *= x[0][i / 4];
             }});
  }
}

void boost_of(const double* p, double* boost) {
  const double gamma = p[0] / mass(p), beta2 = std::pow(momentum(p) / p[0], 2);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const double both = p[i] * p[j] / (p[0] * p[0]);  // beta_i beta_j, with beta_0 = 1
      boost[4 * i + j] = i && j ? (i == j) + (gamma - 1) * both / beta2 : i || j ? -gamma * both : gamma;
    }
}

void boosts(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t T = 7000;
  run({.name = fmt::format("restframe_boost {} {}", dtype, Shape{T, 4}),
       .dtype = dtype,
       .shape = {T, 4, 4},
       .operands = [&] { return Operands{momenta(run, T, dtype, 1)}; },
       .kernel = [&](auto& x, Tensor& y) { kernels::restframe_boost(ctx, x[0], y); },
       .naive =
           [&](const auto& x, auto& y) {
             for (int64_t t = 0; t < T; ++t) boost_of(&x[0][4 * t], &y[16 * t]);
           }});
  run({.name = fmt::format("restframe_boost_backward {} {}", dtype, Shape{T, 4}),
       .dtype = dtype,
       .shape = {T, 4},
       .operands =
           [&] {
             return Operands{run.normal({T, 4, 4}, dtype, 1), momenta(run, T, dtype, 2)};
           },
       .kernel = [&](auto& x, Tensor& dp) { kernels::restframe_boost_backward(ctx, x[0], x[1], dp); },
       .naive =
           [&](const auto& x, auto& dp) {
             const double h = 1e-5;
             for (int64_t i = 0; i < 4 * T; ++i)
               for (double step : {h, -h}) {
                 double p[4], boost[16];
                 std::copy_n(&x[1][i / 4 * 4], 4, p);
                 p[i % 4] += step;
                 boost_of(p, boost);
                 for (int k = 0; k < 16; ++k) dp[i] += x[0][i / 4 * 16 + k] * boost[k] / (2 * step);
               }
           },
       .tolerance = std::max(1e-8, tolerance(dtype))});  // of central differences
}

// Each token's matrix on its 16 vectors.
void transforms(Runner& run, DType dtype) {
  Context& ctx = run.context();
  const int64_t T = 7000, N = 16;
  const Shape matrices = {T, 4, 4}, vectors = {T, N, 4};
  // f(element of L, of the vector that it acts on, of the result)
  auto each = [&](auto f) {
    for (int64_t v = 0; v < T * N; ++v)
      for (int64_t ij = 0; ij < 16; ++ij) f(v / N * 16 + ij, v * 4 + ij % 4, v * 4 + ij / 4);
  };
  auto name = [&](const char* operation) { return fmt::format("{} {} {}", operation, dtype, vectors); };
  const double flops = 32. * T * N;
  auto matrix_and_vectors = [&] { return Operands{run.normal(matrices, dtype, 1), run.normal(vectors, dtype, 2)}; };
  run({.name = name("lorentz_transform"),
       .dtype = dtype,
       .shape = vectors,
       .operands = matrix_and_vectors,
       .kernel = [&](auto& x, Tensor& y) { kernels::lorentz_transform(ctx, x[0], x[1], y); },
       .naive = [&](const auto& x,
                    auto& y) { each([&](int64_t l, int64_t from, int64_t to) { y[to] += x[0][l] * x[1][from]; }); },
       .flops = flops});
  run({.name = name("lorentz_transform_backward_vectors"),
       .dtype = dtype,
       .shape = vectors,
       .operands = matrix_and_vectors,
       .kernel = [&](auto& x, Tensor& y) { kernels::lorentz_transform_backward_vectors(ctx, x[1], x[0], y); },
       .naive = [&](const auto& x,
                    auto& y) { each([&](int64_t l, int64_t from, int64_t to) { y[from] += x[0][l] * x[1][to]; }); },
       .flops = flops});
  run({.name = name("lorentz_transform_backward_matrices"),
       .dtype = dtype,
       .shape = matrices,
       .operands =
           [&] {
             return Operands{run.normal(vectors, dtype, 1), run.normal(vectors, dtype, 2)};
           },
       .kernel = [&](auto& x, Tensor& y) { kernels::lorentz_transform_backward_matrices(ctx, x[0], x[1], y); },
       .naive = [&](const auto& x,
                    auto& y) { each([&](int64_t l, int64_t from, int64_t to) { y[l] += x[0][to] * x[1][from]; }); },
       .flops = flops});
}

const Family minkowski([](Runner& run) {
  for (DType dtype : {DType::f64, DType::f32}) {
    inner(run, dtype);
    kinematics(run, dtype);
    boosts(run, dtype);
    transforms(run, dtype);
  }
});

}  // namespace
}  // namespace lightcone::bench

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/minkowski.h"
#include "kernels/minkowski.h"
#include "tests/support/devices.h"
#include "tests/support/lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
const std::vector<DType> momentum_dtypes = {DType::f64, DType::f32};

Array evaluate(Device device, const std::function<Var(std::vector<Var>&)>& f, const std::vector<Array>& inputs) {
  Context ctx(device, 1);
  Tape tape(ctx, Tape::Mode::evaluate);
  std::vector<Var> x;
  for (const Array& a : inputs) x.push_back(tape.constant(to_tensor(ctx, a, DType::f64)));
  return to_array(f(x).value());
}

double inner(const Array& a, const Array& b, int64_t t) {
  return a.at(t, 0) * b.at(t, 0) - a.at(t, 1) * b.at(t, 1) - a.at(t, 2) * b.at(t, 2) - a.at(t, 3) * b.at(t, 3);
}

// One number per four-momentum.
template <class F>
std::vector<Array> per_momentum(const Array& p, F f) {
  Shape shape = p.shape;
  Array y;
  for (int axis = 0; axis + 1 < shape.rank(); ++axis) y.shape.append(shape[axis]);
  for (int64_t t = 0; t < y.shape.numel(); ++t) y.values.push_back(f(t));
  return {y};
}

struct Quantity {
  const char* name;
  Var (*op)(const Var&);
  double (*value)(double E, double x, double y, double z);
};
const Quantity quantities[] = {
    {"pt", pt, [](double, double x, double y, double) { return std::sqrt(std::max(x * x + y * y, 1e-10)); }},
    {"phi", phi,
     [](double, double x, double y, double) {
       return std::atan2(std::abs(y) < 1e-10 ? 1e-10 : y, std::abs(x) < 1e-10 ? 1e-10 : x);
     }},
    {"eta", eta,
     [](double, double x, double y, double z) {
       const double r = z / std::sqrt(std::max(x * x + y * y + z * z, 1e-10));
       return 0.5 * (std::log(std::max(1 + r, 1e-10)) - std::log(std::max(1 - r, 1e-10)));
     }},
    {"mass", mass,
     [](double E, double x, double y, double z) { return std::sqrt(std::max(E * E - x * x - y * y - z * z, 1e-10)); }},
};

// The matrix of the header, written out.
Array rest_frame(const Array& p) {
  const int64_t T = p.shape[0];
  Array m = zeros({T, 4, 4});
  for (int64_t t = 0; t < T; ++t) {
    double b[3], b2 = 0;
    for (int i = 0; i < 3; ++i) b[i] = p.at(t, 1 + i) / std::max(p.at(t, 0), 1e-10), b2 += b[i] * b[i];
    const double gamma = 1 / std::sqrt(std::max(1 - b2, 1e-10));
    m[16 * t] = gamma;
    for (int i = 0; i < 3; ++i) {
      m[16 * t + 1 + i] = m[16 * t + 4 + 4 * i] = -gamma * b[i];
      for (int j = 0; j < 3; ++j)
        m[16 * t + 5 + 4 * i + j] = (i == j) + (gamma - 1) / std::max(b2, 1e-10) * b[i] * b[j];
    }
  }
  return m;
}

Lorentz matrix_of(const Array& matrices, int64_t t) {
  Lorentz m;
  std::copy_n(matrices.values.begin() + 16 * t, 16, m.begin());
  return m;
}
}  // namespace

TEST_CASE("minkowski: inner products and squared norms") {
  for (Shape shape : {Shape{0, 4}, {4}, {1, 4}, {33, 4}, {7, 3, 4}, {4099, 4}}) {
    check_op(
        {.name = fmt::format("minkowski_inner {}", shape),
         .inputs = {normal(shape, 1), normal(shape, 2)},
         .op = [](auto& x) { return std::vector{minkowski_inner(x[0], x[1])}; },
         .oracle = [](const auto& x) { return per_momentum(x[0], [&](int64_t t) { return inner(x[0], x[1], t); }); },
         .dtypes = momentum_dtypes});
    check_op(
        {.name = fmt::format("minkowski_squarednorm {}", shape),
         .inputs = {normal(shape, 1)},
         .op = [](auto& x) { return std::vector{minkowski_squarednorm(x[0])}; },
         .oracle = [](const auto& x) { return per_momentum(x[0], [&](int64_t t) { return inner(x[0], x[0], t); }); },
         .dtypes = momentum_dtypes});
  }
}

TEST_CASE("minkowski: pt, phi, eta, mass") {
  for (const Quantity& q : quantities) {
    for (Shape shape : {Shape{0, 4}, {4}, {1, 4}, {31, 4}, {5, 13, 4}, {2113, 4}}) {
      Array p = momenta(shape.numel() / 4, 3);
      p.shape = shape;
      check_op({.name = fmt::format("{} {}", q.name, shape),
                .inputs = {p},
                .op = [&](auto& x) { return std::vector{q.op(x[0])}; },
                .oracle =
                    [&](const auto& x) {
                      return per_momentum(x[0], [&](int64_t t) {
                        return q.value(x[0].at(t, 0), x[0].at(t, 1), x[0].at(t, 2), x[0].at(t, 3));
                      });
                    },
                .dtypes = momentum_dtypes,
                .step = 1e-6});
    }
  }
}

TEST_CASE("minkowski: the clamps of pt, phi, eta and mass") {
  for (Device device : devices()) {
    // At rest, nothing at all, along either beam, nearly along it, along x, along -y, light-like, space-like.
    const Array p = {{9, 4}, {5,    0, 0, 0, 0, 0, 0, 0, 5,  0, 0, 5, 5, 0, 0, -5, 5, 2e-6,
                              1e-6, 5, 5, 3, 0, 0, 5, 0, -3, 0, 5, 3, 4, 0, 1, 2,  3, 4}};
    for (const Quantity& q : quantities) {
      CAPTURE(q.name);
      const Array y = evaluate(device, [&](auto& x) { return q.op(x[0]); }, {p});
      for (int64_t t = 0; t < 9; ++t) {
        CAPTURE(t);
        CHECK(y[t] == doctest::Approx(q.value(p.at(t, 0), p.at(t, 1), p.at(t, 2), p.at(t, 3))).epsilon(1e-9));
      }
    }
    CHECK(evaluate(device, [](auto& x) { return phi(x[0]); }, {p})[0] == doctest::Approx(M_PI / 4));
    CHECK(evaluate(device, [](auto& x) { return eta(x[0]); }, {p})[2] == doctest::Approx(0.5 * std::log(2e10)));
    // A clamped value has no gradient, and nothing is infinite.
    Context ctx(device, 1);
    for (const Quantity& q : quantities) {
      Tape tape(ctx);
      const Var x = tape.variable(to_tensor(ctx, p, DType::f64));
      const Var y = q.op(x);
      tape.backward(y, ctx.of({9}, DType::f64, std::vector<double>(9, 1.0)));
      const Array g = to_array(tape.gradient(x));
      for (double v : g.values) CHECK(std::isfinite(v));
      for (int64_t c = 0; c < 4; ++c)
        CHECK(g[4 + c] == doctest::Approx(q.op == eta && c == 3 ? 1e5 : 0));  // no momentum at all
    }
  }
}

TEST_CASE("minkowski: eta keeps its digits far forward, where 1 - pz/|p| has none") {
  for (Device device : devices()) {
    const Array p = {{2, 4}, {1e5, 1, 0, 2e4, 1e5, 0, -1, -2e4}};
    const Array y = evaluate(device, [](auto& x) { return eta(x[0]); }, {p});
    CHECK(y[0] == doctest::Approx(std::asinh(2e4)).epsilon(1e-15));
    CHECK(y[1] == doctest::Approx(-std::asinh(2e4)).epsilon(1e-15));
  }
}

TEST_CASE("minkowski: NaN stays NaN") {
  for (Device device : devices()) {
    const Array p = {{1, 4}, {NAN, NAN, NAN, NAN}};
    for (const Quantity& q : quantities)
      CHECK(std::isnan(evaluate(device, [&](auto& x) { return q.op(x[0]); }, {p})[0]));
    for (double v : evaluate(device, [](auto& x) { return restframe_boost(x[0]); }, {p}).values) CHECK(std::isnan(v));
  }
}

TEST_CASE("minkowski: rest-frame boost") {
  for (int64_t T : {0, 1, 33, 2049})
    check_op({.name = fmt::format("restframe_boost {}", T),
              .inputs = {momenta(T, 5, 20)},
              .op = [](auto& x) { return std::vector{restframe_boost(x[0])}; },
              .oracle = [](const auto& x) { return std::vector{rest_frame(x[0])}; },
              .dtypes = momentum_dtypes,
              .step = 1e-6});
}

TEST_CASE("minkowski: rest-frame boost at its clamps") {
  for (Device device : devices()) {
    // At rest, slow (beta^2 below its bound), light-like, space-like, negative energy.
    const Array p = {{5, 4}, {3, 0, 0, 0, 1, 3e-6, -4e-6, 1e-6, 5, 3, 4, 0, 1, 2, 0, 0, -1, 1e-11, 0, 0}};
    const Array m = evaluate(device, [](auto& x) { return restframe_boost(x[0]); }, {p});
    const Array expected = rest_frame(p);
    for (int64_t t = 0; t < 5; ++t)
      for (int64_t i = 16 * t; i < 16 * t + 16; ++i)
        CHECK(std::abs(m[i] - expected[i]) <= 1e-12 * std::abs(expected[16 * t]));
  }
}

TEST_CASE("minkowski: matrices on vectors") {
  for (Shape shape : {Shape{0, 4}, {1, 4}, {33, 4}, {0, 3, 4}, {17, 0, 4}, {17, 3, 4}, {2051, 4}})
    check_op({.name = fmt::format("lorentz_transform {}", shape),
              .inputs = {normal({shape[0], 4, 4}, 7), normal(shape, 8)},
              .op = [](auto& x) { return std::vector{lorentz_transform(x[0], x[1])}; },
              .oracle =
                  [](const auto& x) {
                    Array y = zeros(x[1].shape);
                    const int64_t N = x[1].shape.rank() == 2 ? 1 : x[1].shape[1];
                    for (int64_t n = 0; n < y.shape.numel() / 4; ++n)
                      for (int i = 0; i < 4; ++i)
                        for (int j = 0; j < 4; ++j) y[4 * n + i] += x[0][16 * (n / N) + 4 * i + j] * x[1][4 * n + j];
                    return std::vector{y};
                  },
              .dtypes = momentum_dtypes});
}

// The largest entry of a rapidity-3 boost is 10, of its products 100: a few hundred roundings of 1e-16.
constexpr double covariance = 1e-12;

TEST_CASE("minkowski: invariants do not change under Lorentz transformations") {
  for (Device device : devices()) {
    const Array a = momenta(33, 1, 5), b = momenta(33, 2, 3);
    auto product = [](auto& x) { return minkowski_inner(x[0], x[1]); };
    auto norm = [](auto& x) { return minkowski_squarednorm(x[0]); };
    auto rest_mass = [](auto& x) { return mass(x[0]); };
    for (const Lorentz& L : lorentz_transformations(11)) {
      const Array a2 = transformed(L, a), b2 = transformed(L, b);
      CHECK(relative_error(evaluate(device, product, {a2, b2}), evaluate(device, product, {a, b})) < covariance);
      // Squares of energies of some hundred GeV cancel to 25 GeV^2.
      CHECK(relative_error(evaluate(device, norm, {a2}), evaluate(device, norm, {a})) < 100 * covariance);
      CHECK(relative_error(evaluate(device, rest_mass, {a2}), evaluate(device, rest_mass, {a})) < 100 * covariance);
    }
  }
}

TEST_CASE("minkowski: pt, phi and eta under rotations about and boosts along the beam") {
  for (Device device : devices()) {
    const Array p = momenta(33, 1, 0);
    auto f = [&](Var (*op)(const Var&), const Array& x) {
      return evaluate(device, [=](auto& v) { return op(v[0]); }, {x});
    };
    const Array turned = transformed(rotation(0.7, {0, 0, 1}), p);
    CHECK(relative_error(f(pt, turned), f(pt, p)) < covariance);
    CHECK(relative_error(f(eta, turned), f(eta, p)) < covariance);
    for (int64_t t = 0; t < 33; ++t)
      CHECK(std::cos(f(phi, turned)[t] - f(phi, p)[t] - 0.7) == doctest::Approx(1).epsilon(covariance));
    for (double rapidity : {0.1, 1.0, 3.0}) {
      const Array boosted = transformed(boost(rapidity, {0, 0, 1}), p);
      CHECK(relative_error(f(pt, boosted), f(pt, p)) < covariance);
      CHECK(relative_error(f(phi, boosted), f(phi, p)) < covariance);
      Array shifted = f(eta, p);  // massless: pseudorapidity is rapidity
      for (double& e : shifted.values) e += rapidity;
      CHECK(relative_error(f(eta, boosted), shifted) < covariance);
    }
  }
}

TEST_CASE("minkowski: rest-frame boosts are covariant up to a Wigner rotation") {
  for (Device device : devices()) {
    const Array p = momenta(9, 4, 5);
    auto frames = [](auto& x) { return restframe_boost(x[0]); };
    const Array m = evaluate(device, frames, {p});
    const Array at_rest = evaluate(device, [](auto& x) { return lorentz_transform(restframe_boost(x[0]), x[0]); }, {p});
    for (int64_t t = 0; t < 9; ++t) {
      CHECK(at_rest.at(t, 0) == doctest::Approx(5).epsilon(1e-12));
      for (int c = 1; c < 4; ++c) CHECK(std::abs(at_rest.at(t, c)) < 1e-12);
    }
    for (const Lorentz& L : lorentz_transformations(21)) {
      const Array m2 = evaluate(device, frames, {transformed(L, p)});
      for (int64_t t = 0; t < 9; ++t) {
        // W = B(Lp) L B(p)^-1 leaves the rest frame's time axis alone, and is a Lorentz transformation: W W^-1 = 1.
        const Lorentz W = matrix_of(m2, t) * L * inverse(matrix_of(m, t)), one = W * inverse(W);
        for (int i = 0; i < 16; ++i) {
          CHECK(std::abs(one[i] - (i % 5 == 0)) < 100 * covariance);  // gamma reaches some tens in each matrix
          if (i < 4 || i % 4 == 0) CHECK(std::abs(W[i] - (i == 0)) < 100 * covariance);
        }
      }
    }
    // Under rotations alone B(Rp) = R B(p) R^-1.
    const Lorentz R = random_rotation(3);
    const Array m2 = evaluate(device, frames, {transformed(R, p)});
    for (int64_t t = 0; t < 9; ++t) {
      const Lorentz expected = R * matrix_of(m, t) * inverse(R);
      for (int i = 0; i < 16; ++i) CHECK(std::abs(m2[16 * t + i] - expected[i]) < 10 * covariance);
    }
  }
}

TEST_CASE("minkowski: local components do not depend on the frame they came from") {
  for (Device device : devices()) {
    const Array v = normal({33, 4}, 1);
    const Array frames = repeated(random_rotation(5) * random_boost(6, 1), 33);
    auto local = [](auto& x) { return lorentz_transform(x[0], x[1]); };
    for (const Lorentz& L : lorentz_transformations(31)) {
      const Array frames2 = repeated(matrix_of(frames, 0) * inverse(L), 33);
      CHECK(relative_error(evaluate(device, local, {frames2, transformed(L, v)}),
                           evaluate(device, local, {frames, v})) < covariance);
    }
  }
}

namespace {
// What every kernel writes, operands and results `offset` elements behind an aligned address.
std::vector<Array> results_at(Device device, DType dtype, int64_t offset) {
  Context ctx(device, 1);
  auto place = [&](Shape shape) {
    return ctx.empty({offset + shape.numel()}, dtype).narrow(offset, shape.numel()).reshape(shape);
  };
  auto of = [&](const Array& a) {
    Tensor there = place(a.shape);
    const Tensor from = to_tensor(ctx, a, dtype);
    ctx.allocator().copy_within(there.raw(), from.raw(), from.bytes());
    return there;
  };
  std::vector<Array> out;
  auto run = [&](Shape shape, auto kernel) {
    Tensor y = place(shape);
    kernel(y);
    out.push_back(to_array(y));
  };
  const int64_t T = 37, N = 3;
  const Tensor p = of(momenta(T, 1, 20)), q = of(momenta(T, 2)), d = of(normal({T}, 3)), L = of(normal({T, 4, 4}, 4)),
               v = of(normal({T, N, 4}, 5)), w = of(normal({T, N, 4}, 6));
  run({T}, [&](Tensor& y) { kernels::minkowski_inner(ctx, p, q, y); });
  run({T, 4}, [&](Tensor& y) { kernels::minkowski_inner_backward(ctx, d, q, y); });
  for (auto k : {kernels::Kinematic::pt, kernels::Kinematic::phi, kernels::Kinematic::eta, kernels::Kinematic::mass}) {
    run({T}, [&](Tensor& y) { kernels::kinematic(ctx, k, p, y); });
    run({T, 4}, [&](Tensor& y) { kernels::kinematic_backward(ctx, k, d, p, y); });
  }
  run({T, 4, 4}, [&](Tensor& y) { kernels::restframe_boost(ctx, p, y); });
  run({T, 4}, [&](Tensor& y) { kernels::restframe_boost_backward(ctx, L, p, y); });
  run({T, N, 4}, [&](Tensor& y) { kernels::lorentz_transform(ctx, L, v, y); });
  run({T, N, 4}, [&](Tensor& y) { kernels::lorentz_transform_backward_vectors(ctx, v, L, y); });
  run({T, 4, 4}, [&](Tensor& y) { kernels::lorentz_transform_backward_matrices(ctx, v, w, y); });
  return out;
}
}  // namespace

TEST_CASE("minkowski: bits do not depend on the alignment") {
  for (Device device : devices())
    for (DType dtype : momentum_dtypes) {
      const auto aligned = results_at(device, dtype, 0), behind = results_at(device, dtype, 1);
      for (size_t i = 0; i < aligned.size(); ++i) {
        CAPTURE(i);
        CHECK(aligned[i].values == behind[i].values);
      }
    }
}

TEST_CASE("minkowski refuses bad shapes") {
  for (Device device : devices()) {
    Context ctx(device);
    Tape tape(ctx);
    auto of = [&](Shape shape, DType dtype = DType::f64) { return tape.constant(ctx.zeros(shape, dtype)); };
    CHECK_THROWS_WITH_AS(minkowski_inner(of({3, 4}), of({2, 4})),
                         "minkowski_inner: b has shape [2, 4], expected [3, 4]", Error);
    CHECK_THROWS_WITH_AS(minkowski_inner(of({3, 4}), of({3, 4}, DType::f32)), "minkowski_inner: b is f32, expected f64",
                         Error);
    CHECK_THROWS_WITH_AS(minkowski_squarednorm(of({})),
                         "minkowski_inner: a has shape [], expected 4 entries along the last axis", Error);
    CHECK_THROWS_WITH_AS(pt(of({4, 3})), "pt: p has shape [4, 3], expected 4 entries along the last axis", Error);
    CHECK_THROWS_WITH_AS(mass(of({4, 4}, DType::bf16)), "kinematic: p is bf16, expected f64 or f32", Error);
    CHECK_THROWS_WITH_AS(restframe_boost(of({4})), "restframe_boost: p has shape [4], expected 2 axes", Error);
    CHECK_THROWS_WITH_AS(lorentz_transform(of({3, 4}), of({3, 4})),
                         "lorentz_transform: matrices has shape [3, 4], expected 3 axes", Error);
    CHECK_THROWS_WITH_AS(lorentz_transform(of({3, 4, 4}), of({2, 4})),
                         "lorentz_transform: vectors has shape [2, 4], expected [3, 4]", Error);
    CHECK_THROWS_WITH_AS(lorentz_transform(of({3, 4, 4}), of({2, 5, 4})),
                         "lorentz_transform: vectors has shape [2, 5, 4], expected [3, 5, 4]", Error);
    CHECK_THROWS_WITH_AS(lorentz_transform(of({3, 4, 4}), of({4})),
                         "lorentz_transform: vectors has shape [4], expected 3 axes", Error);
  }
}

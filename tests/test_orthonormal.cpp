#include <doctest/doctest.h>

#include <limits>

#include "tests/support/orthonormal.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
// Three time-like vectors each, or a time-like boost, that are far from degenerate.
Array sets(int64_t T, uint64_t seed) {
  Array v = momenta(3 * T, seed, 1, 1);
  v.shape = {T, 3, 4};
  return v;
}
Array pairs(int64_t T, uint64_t seed) {
  Array v = momenta(2 * T, seed, 1, 1);
  v.shape = {T, 2, 4};
  return v;
}

// The header's formulas, with arrays and sums over all indices.
using Vec = std::array<double, 4>;
constexpr double metric[4] = {1, -1, -1, -1};
double inner(const Vec& a, const Vec& b) {
  double sum = 0;
  for (int i = 0; i < 4; ++i) sum += metric[i] * a[i] * b[i];
  return sum;
}
Vec minus(Vec a, double s, const Vec& b) {
  for (int i = 0; i < 4; ++i) a[i] -= s * b[i];
  return a;
}
Vec times(double s, const Vec& a) { return minus({}, -s, a); }
Vec unit(const Vec& v, double eps) { return times(1 / (std::sqrt(std::abs(inner(v, v))) + eps), v); }
Vec cross(const Vec& a, const Vec& b, const Vec& c) {
  Vec out{};
  std::array<int, 4> p = {0, 1, 2, 3};
  do {
    int swaps = 0;
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < i; ++j) swaps += p[j] > p[i];
    out[p[0]] += metric[p[0]] * (swaps % 2 ? -1 : 1) * a[p[1]] * b[p[2]] * c[p[3]];
  } while (std::next_permutation(p.begin(), p.end()));
  return out;
}
Array naive_frames(const Array& vectors, bool by_cross, double eps) {
  const int64_t T = vectors.shape[0];
  Array L = zeros({T, 4, 4});
  for (int64_t t = 0; t < T; ++t) {
    Vec v[3], e[4];
    for (int j = 0; j < 3; ++j) {
      std::copy_n(vectors.values.begin() + 12 * t + 4 * j, 4, v[j].begin());
      v[j] = unit(v[j], eps);
    }
    e[0] = v[0];
    const double d0 = inner(e[0], e[0]) + eps;
    e[1] = unit(by_cross ? cross(e[0], v[1], v[2]) : minus(v[1], inner(v[1], e[0]) / d0, e[0]), eps);
    e[2] = unit(by_cross ? cross(e[0], e[1], v[2])
                         : minus(minus(v[2], inner(v[2], e[0]) / d0, e[0]),
                                 inner(v[2], e[1]) / (inner(e[1], e[1]) + eps), e[1]),
                eps);
    e[3] = cross(e[0], e[1], e[2]);
    if (by_cross) e[3] = unit(e[3], eps);
    for (int i = 0; i < 16; ++i) L[16 * t + i] = metric[i / 4] * metric[i % 4] * e[i / 4][i % 4];
  }
  return L;
}
Array naive_polar(const Array& boost, const Array& references, bool by_cross, double eps) {
  const int64_t T = boost.shape[0];
  Array L = zeros({T, 4, 4});
  for (int64_t t = 0; t < T; ++t) {
    Lorentz B{}, R{1};
    const double *p = &boost.values[4 * t], m = std::sqrt(inner({p[0], p[1], p[2], p[3]}, {p[0], p[1], p[2], p[3]}));
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j)
        B[4 * i + j] = i && j ? (i == j) + p[i] * p[j] / (m * (p[0] + m)) : (i || j ? -1 : 1) * p[i + j] / m;
    Array r = {{2, 4}, {references.values.begin() + 8 * t, references.values.begin() + 8 * t + 8}};
    r = transformed(B, r);
    Vec v[2], e[3];
    auto normalised = [eps](Vec x) {
      const double length = std::hypot(x[1], x[2], x[3]);
      return times(1 / std::max(length, eps), x);
    };
    for (int j = 0; j < 2; ++j) v[j] = normalised({0, r.at(j, 1), r.at(j, 2), r.at(j, 3)});
    // A cross product of three-vectors is that of four with the time axis before them, but for a sign.
    auto cross3 = [](const Vec& a, const Vec& b) { return times(1, cross({1}, a, b)); };
    e[0] = v[0];
    e[1] = normalised(by_cross ? cross3(e[0], v[1]) : minus(v[1], -inner(v[1], e[0]), e[0]));
    e[2] = cross3(e[0], e[1]);
    for (int k = 0; k < 3; ++k) std::copy_n(e[k].begin(), 4, R.begin() + 4 + 4 * k);
    const Lorentz RB = R * B;
    std::copy_n(RB.begin(), 16, L.values.begin() + 16 * t);
  }
  return L;
}

}  // namespace

TEST_CASE("orthonormal: frames and gradients, of any number of particles") {
  for (std::string method : methods)
    for (int64_t T : {0, 1, 31, 65, 1100}) {
      const bool by_cross = method == "cross";
      check_op({.name = fmt::format("orthonormal_frames {} {}", method, T),
                .inputs = {sets(T, 1)},
                .op = [&](auto& x) { return std::vector{orthonormal_frames(x[0], options(method)).frames}; },
                .oracle = [&](const auto& x) { return std::vector{naive_frames(x[0], by_cross, 1e-15)}; },
                .dtypes = {DType::f64, DType::f32},
                .step = 1e-7});
      check_op({.name = fmt::format("polar_decomposition {} {}", method, T),
                .inputs = {momenta(T, 2, 1, 1), pairs(T, 3)},
                .op = [&](auto& x) { return std::vector{polar_decomposition(x[0], x[1], options(method)).frames}; },
                .oracle = [&](const auto& x) { return std::vector{naive_polar(x[0], x[1], by_cross, 1e-15)}; },
                .dtypes = {DType::f64, DType::f32},
                .step = 1e-7});
    }
}

TEST_CASE("orthonormal: limited boosts, of any number of particles") {
  for (std::optional<double> hardness : {std::optional<double>{}, {10.}, {2.}})
    for (int64_t T : {0, 1, 31, 65, 1100})
      check_op({.name = fmt::format("clamp_boost {} {}", hardness.value_or(0), T),
                .inputs = {momenta(T, 4, 1, 2)},
                .op = [&](auto& x) { return std::vector{clamp_boost(x[0], 3, hardness).boost}; },
                .oracle =
                    [&](const auto& x) {
                      Array y = x[0];
                      for (int64_t t = 0; t < T; ++t) {
                        const Vec p = {y.at(t, 0), y.at(t, 1), y.at(t, 2), y.at(t, 3)};
                        const double m = std::sqrt(inner(p, p)), gamma = p[0] / m, h = hardness.value_or(1);
                        double limited = std::min(gamma, 3.);
                        if (hardness) limited = 3 - std::log1p(std::exp(h * (3 - gamma))) / h;
                        limited = std::max(limited, 1.);
                        y.at(t, 0) = m * limited;
                        const double speed = std::sqrt(std::max(1 - 1 / (limited * limited), 1e-10));
                        for (int i = 1; i < 4; ++i)
                          y.at(t, i) = m * limited * speed * p[i] / std::hypot(p[1], p[2], p[3]);
                      }
                      return std::vector{y};
                    },
                .dtypes = {DType::f64, DType::f32},
                .step = 1e-7});
}

TEST_CASE("orthonormal: frames are Lorentz transformations, to which only the global frame's choice matters") {
  for (Device device : devices()) {
    const Array v = sets(33, 5), p = momenta(33, 6, 1, 1), r = pairs(33, 7);
    for (std::string method : methods) {
      CAPTURE(method);
      const Frames f = frames_of(options(method)), g = polar_of(options(method));
      const Array L = evaluate(device, f, {v}).frames, M = evaluate(device, g, {p, r}).frames;
      for (const Array& frames : {L, M})
        for (int64_t t = 0; t < 33; ++t) {
          const Lorentz m = matrix_of(frames, t), one = inverse(m) * m;
          for (int i = 0; i < 16; ++i) CHECK(std::abs(one[i] - (i % 5 == 0)) < 1e-10);
        }
      // The first vector's direction, and the boost vector, are the time axes.
      for (int64_t t = 0; t < 33; ++t) {
        const Array at_rest = transformed(matrix_of(L, t), row(v, t)),
                    boosted = transformed(matrix_of(M, t), row(p, t));
        for (int i = 1; i < 4; ++i) {
          CHECK(std::abs(at_rest[i]) < 1e-11);
          CHECK(std::abs(boosted[i]) < 1e-11);
        }
      }
      for (const Lorentz& Lambda : lorentz_transformations(41)) {
        const Array L2 = evaluate(device, f, {transformed(Lambda, v)}).frames,
                    M2 = evaluate(device, g, {transformed(Lambda, p), transformed(Lambda, r)}).frames;
        for (int64_t t = 0; t < 33; ++t) {
          const Lorentz expected = matrix_of(L, t) * inverse(Lambda), expected2 = matrix_of(M, t) * inverse(Lambda);
          for (int i = 0; i < 16; ++i) {
            CHECK(std::abs(L2[16 * t + i] - expected[i]) < 1e-8);  // entries reach hundreds, gamma^2 of them is lost
            CHECK(std::abs(M2[16 * t + i] - expected2[i]) < 1e-8);
          }
        }
      }
    }
  }
}

TEST_CASE("orthonormal: a limited boost keeps mass and direction") {
  for (Device device : devices()) {
    const Array p = momenta(40, 8, 2, 5);
    Context ctx(device, 1);
    Tape tape(ctx);
    for (std::optional<double> hardness : {std::optional<double>{}, {10.}}) {
      const Array y = to_array(clamp_boost(tape.constant(to_tensor(ctx, p, DType::f64)), 2.5, hardness).boost.value());
      for (int64_t t = 0; t < 40; ++t) {
        const Vec a = {p.at(t, 0), p.at(t, 1), p.at(t, 2), p.at(t, 3)},
                  b = {y.at(t, 0), y.at(t, 1), y.at(t, 2), y.at(t, 3)};
        CHECK(inner(b, b) == doctest::Approx(4).epsilon(1e-10));
        CHECK(b[0] <= 2 * 2.5 * (1 + 1e-12));
        for (int i = 1; i < 4; ++i) CHECK(b[i] * a[1] == doctest::Approx(a[i] * b[1]).epsilon(1e-10));
      }
    }
  }
}

namespace {
// Sets of three vectors which are as degenerate as they come.
const Array degenerate = {
    {14, 3, 4}, {0,      0,    0, 0,    0,   0,      0,   0, 0,   0,  0,      0,    // nothing at all
                 5,      3,    0, 4,    5,   3,      0,   4, 5,   3,  0,      4,    // one light-like vector
                 5,      3,    0, 4,    5,   0,      4,   3, 5,   -4, 0,      3,    // light-like vectors
                 2,      1,    0, 0,    2,   1,      0,   0, 3,   0,  1,      1,    // two equal ones
                 2,      1,    0, 0,    4,   2,      0,   0, 8,   4,  0,      0,    // collinear
                 1,      0,    0, 0,    2,   0,      0,   0, 3,   0,  0,      0,    // at rest
                 3,      1,    0, 0,    3,   0,      1,   0, 6,   1,  1,      0,    // coplanar
                 -2,     1,    0, 0,    -3,  0,      1,   1, -2,  0,  1,      0,    // negative energies
                 1,      2,    0, 0,    1,   0,      2,   0, 1,   0,  0,      2,    // space-like
                 0,      1,    0, 0,    0,   0,      1,   0, 0,   0,  0,      1,    // without energy
                 1e-170, 0,    0, 0,    0,   1e-170, 0,   0, 0,   0,  1e-170, 0,    // squares vanish
                 1e-9,   1e-9, 0, 0,    1,   0,      0,   1, 1e6, 0,  1e6,    1,    // scales apart
                 5,      3,    0, 4,    1,   0,      0,   0, 0,   0,  0,      0,    // light-like, at rest, nothing
                 1e9,    1e9,  0, 1e-3, 1e9, 0,      1e9, 0, 1e9, 0,  0,      1e9}  // fast
};
constexpr int64_t cases = 14;
Array degenerate_vectors(int first, int count) {
  Array out = zeros(count == 1 ? Shape{cases, 4} : Shape{cases, count, 4});
  for (int64_t i = 0; i < out.shape.numel(); ++i)
    out[i] = degenerate[i / (4 * count) * 12 + 4 * first + i % (4 * count)];
  return out;
}
}  // namespace

TEST_CASE("orthonormal: degenerate sets have finite frames and gradients") {
  for (Device device : devices()) {
    const Array cotangent = normal({cases, 4, 4}, 9);
    for (std::string method : methods)
      for (double eps : {0., 1e-16, 1e-4, 1.})
        for (DType dtype : {DType::f64, DType::f32}) {
          CAPTURE(method);
          CAPTURE(eps);
          CAPTURE(name_of(dtype));
          const Outcome y = evaluate(device, frames_of(options(method, eps)), {degenerate}, cotangent, {}, dtype);
          const Outcome z = evaluate(device, polar_of(options(method, eps)),
                                     {degenerate_vectors(0, 1), degenerate_vectors(1, 2)}, cotangent, {}, dtype);
          for (const Outcome* o : {&y, &z}) {
            for (int64_t t = 0; t < cases; ++t) {
              CAPTURE(t);
              CHECK(all_finite(row(o->frames, t)));
              for (const Array& g : o->gradients) CHECK(all_finite(row(g, t)));
            }
            CHECK((o->counts[0] == 0) == (eps == 0));
            CHECK((o->counts[1] == 0) == (eps == 0));
          }
        }
  }
}

TEST_CASE("orthonormal: degenerate boosts have finite limits and gradients") {
  for (Device device : devices()) {
    const Array v = {degenerate.shape, degenerate.values};
    for (std::optional<double> hardness : {std::optional<double>{}, {10.}})
      for (DType dtype : {DType::f64, DType::f32}) {
        Context ctx(device, 1);
        Tape tape(ctx);
        const Var x = tape.variable(to_tensor(ctx, {{3 * cases, 4}, degenerate.values}, dtype));
        const ClampedBoost y = clamp_boost(x, 3, hardness);
        tape.backward(y.boost, to_tensor(ctx, normal({3 * cases, 4}, 10), dtype));
        const Array values = to_array(y.boost.value()), gradients = to_array(tape.gradient(x));
        CHECK(all_finite(values));
        CHECK(all_finite(gradients));
        for (int i = 0; i < 4; ++i) {
          CHECK(values.at(3, i) == 0);  // light-like: without a mass
          CHECK(gradients.at(3, i) == 0);
        }
        CHECK(y.mean() == std::numeric_limits<double>::infinity());
        CHECK(y.largest() == std::numeric_limits<double>::infinity());
      }
  }
}

TEST_CASE("orthonormal: statistics of Lorentz factors, of which a NaN is the largest wherever it is") {
  for (Device device : devices())
    for (int64_t T : {0, 1, 700}) {
      Context ctx(device, 1);
      Tape tape(ctx);
      Array v = momenta(T, 18, 1, 2);
      double sum = 0, largest = 0, above = 0;
      for (int64_t t = 0; t < T; ++t) {
        const double gamma = v.at(t, 0);
        sum += gamma, largest = std::max(largest, gamma), above += gamma > 3;
      }
      const ClampedBoost y = clamp_boost(tape.constant(to_tensor(ctx, v, DType::f64)), 3, {});
      CHECK(y.mean() == doctest::Approx(T ? sum / T : 0).epsilon(1e-9));
      CHECK(y.largest() == doctest::Approx(largest).epsilon(1e-9));
      CHECK(y.above() == above);
      for (int64_t t : {int64_t{0}, T / 2, T - 1}) {
        if (T == 0) continue;
        Array spoilt = v;
        spoilt.at(t, 1) = std::nan("");
        CHECK(std::isnan(clamp_boost(tape.constant(to_tensor(ctx, spoilt, DType::f64)), 3, {}).largest()));
      }
    }
}

TEST_CASE("orthonormal: noise makes frames of equal vectors, of its own for each seed, particle and call") {
  Array of_cpu;
  for (Device device : devices()) {
    const Array v = {{2, 3, 4}, {2, 1, 0, 0, 2, 1, 0, 0, 3, 0, 1, 1, 2, 1, 0, 0, 2, 1, 0, 0, 3, 0, 1, 1}};
    auto frames = [&](uint64_t seed, int calls, Tape::Mode mode = Tape::Mode::train) {
      Context ctx(device, 1, seed);
      Tape tape(ctx, mode);
      Array y;
      for (int i = 0; i < calls; ++i) {
        const RegularisedFrames f =
            orthonormal_frames(tape.constant(to_tensor(ctx, v, DType::f64)), options("gramschmidt", 1e-3));
        CHECK(f.lightlike() == 0);
        CHECK(f.dependent() == 2);
        CHECK(f.improper() == 0);
        y = to_array(f.frames.value());
      }
      return y;
    };
    const Array one = frames(1, 1);
    CHECK(frames(1, 1).values == one.values);
    CHECK(frames(1, 2).values != one.values);
    CHECK(frames(2, 1).values != one.values);
    CHECK(row(one, 0).values != row(one, 1).values);
    const Array shared = frames(1, 1, Tape::Mode::evaluate);
    CHECK(row(shared, 0).values == row(shared, 1).values);
    if (device == Device::cpu) of_cpu = one;
    CHECK(relative_error(one, of_cpu) < 1e-9);  // the same numbers; the vectors differ by 1e-3 of themselves
    for (int64_t t : {0, 1}) {
      const Lorentz m = matrix_of(one, t), unity = inverse(m) * m;
      for (int i = 0; i < 16; ++i) CHECK(std::abs(unity[i] - (i % 5 == 0)) < 1e-6);
    }
  }
}

TEST_CASE("orthonormal: a particle's bits depend neither on the others nor on threads; NaN stays where it is") {
  for (Device device : devices()) {
    const int64_t T = 1500;
    Array v = sets(T, 11), p = momenta(T, 12, 1, 1), r = pairs(T, 13);
    for (int64_t t = 0; t < T; t += 7)  // some that need noise
      for (int i = 0; i < 4; ++i) v[12 * t + 4 + i] = v[12 * t + i], r[8 * t + 4 + i] = r[8 * t + i];
    const Array cotangent = normal({T, 4, 4}, 14);
    for (std::string method : methods) {
      const Frames f = frames_of(options(method)), g = polar_of(options(method));
      const Outcome y = evaluate(device, f, {v}, cotangent), z = evaluate(device, g, {p, r}, cotangent);
      CHECK(y.counts[1] == (T + 6) / 7);
      CHECK(z.counts[1] == (T + 6) / 7);
      for (int threads : {2, 5}) {
        const Outcome y2 = evaluate(device, f, {v}, cotangent, {}, DType::f64, threads),
                      z2 = evaluate(device, g, {p, r}, cotangent, {}, DType::f64, threads);
        CHECK(y2.frames.values == y.frames.values);
        CHECK(y2.gradients[0].values == y.gradients[0].values);
        CHECK(y2.counts == y.counts);
        CHECK(z2.frames.values == z.frames.values);
        CHECK(z2.gradients[0].values == z.gradients[0].values);
        CHECK(z2.gradients[1].values == z.gradients[1].values);
        CHECK(z2.counts == z.counts);
      }
      auto alone = [](const Array& a, int64_t t) {
        Array one = row(a, t);
        Shape shape = {1};
        for (int64_t extent : one.shape) shape.append(extent);
        return Array{shape, one.values};
      };
      for (int64_t t : {1, 64, 1499}) {
        const Outcome y1 = evaluate(device, f, {alone(v, t)}, alone(cotangent, t)),
                      z1 = evaluate(device, g, {alone(p, t), alone(r, t)}, alone(cotangent, t));
        CHECK(y1.frames.values == row(y.frames, t).values);
        CHECK(y1.gradients[0].values == row(y.gradients[0], t).values);
        CHECK(z1.frames.values == row(z.frames, t).values);
        CHECK(z1.gradients[1].values == row(z.gradients[1], t).values);
      }
      Array spoilt = v;
      spoilt[12 * 5 + 2] = std::nan("");
      const Outcome w = evaluate(device, f, {spoilt}, cotangent);
      CHECK(w.counts[2] == y.counts[2] + 1);
      CHECK(std::isnan(w.frames[16 * 5]));
      CHECK(std::isnan(w.gradients[0][12 * 5]));
      CHECK(row(w.gradients[0], 6).values == row(y.gradients[0], 6).values);
    }
  }
}

TEST_CASE("orthonormal: gradients of one side alone") {
  for (Device device : devices()) {
    const Array p = momenta(9, 15, 1, 1), r = pairs(9, 16), cotangent = normal({9, 4, 4}, 17);
    const Outcome both = evaluate(device, polar_of(options("gramschmidt")), {p, r}, cotangent);
    for (int side : {0, 1}) {
      const Outcome one = evaluate(
          device,
          [&](auto& x) {
            const Var other = x[0].tape().constant(to_tensor(x[0].context(), side ? p : r, DType::f64));
            return side ? polar_decomposition(other, x[0], options("gramschmidt"))
                        : polar_decomposition(x[0], other, options("gramschmidt"));
          },
          {side ? r : p}, cotangent);
      CHECK(one.gradients[0].values == both.gradients[side].values);
    }
  }
}

// Vectors of a fresh network differ in the fourth digit, and are predicted where jets are fast.
TEST_CASE("orthonormal: nearly parallel vectors give orthonormal frames, that follow them") {
  for (Device device : devices()) {
    const Array v = sets(33, 51), r = pairs(33, 52), direction = momenta(33, 53, 1, 1);
    Array near = v, references = r;
    for (int64_t i = 0; i < near.shape.numel(); ++i) near[i] = direction[i / 12 * 4 + i % 4] + 1e-4 * v[i];
    for (int64_t i = 0; i < references.shape.numel(); ++i)
      references[i] = direction[i / 8 * 4 + i % 4] + 1e-4 * references[i];
    for (std::string method : methods) {
      CAPTURE(method);
      OrthoKwargs exact = options(method);  // bounds that act on 1e-8, cross products of these, not at all
      exact.eps_norm = 1e-30, exact.eps_reg = exact.eps_reg_coplanar = exact.eps_reg_lightlike = 0;
      const Array L = evaluate(device, frames_of(exact), {near}).frames;
      const Array M = evaluate(device, polar_of(exact), {momenta(33, 54, 1, 1), references}).frames;
      for (const Array& frames : {L, M})
        for (int64_t t = 0; t < 33; ++t) {
          const Lorentz m = matrix_of(frames, t), one = inverse(m) * m;
          for (int i = 0; i < 16; ++i) CHECK(std::abs(one[i] - (i % 5 == 0)) < 1e-9);
        }
      // A change in the last digits of vectors is 1e-12 of their difference.
      const Lorentz Lambda = random_boost(55, 1);
      const Array L2 = evaluate(device, frames_of(exact), {transformed(Lambda, near)}).frames;
      double largest = 0, change = 0;
      for (int64_t t = 0; t < 33; ++t) {
        const Lorentz expected = matrix_of(L, t) * inverse(Lambda);
        for (int i = 0; i < 16; ++i) {
          largest = std::max(largest, std::abs(expected[i]));
          change = std::max(change, std::abs(L2[16 * t + i] - expected[i]));
        }
      }
      CAPTURE(change);
      CHECK(change < 1e-9 * largest);
    }
  }
}

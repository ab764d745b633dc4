#include "autograd/pair_vectors.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/support/devices.h"
#include "tests/support/jet_offsets.h"
#include "tests/support/lorentz.h"

using namespace lightcone;
using namespace lightcone::test;
using kernels::Pool;

namespace {

int64_t tokens_of(const Jets& jets) { return std::accumulate(jets.begin(), jets.end(), int64_t{0}); }
int64_t pairs_of(const Jets& jets) { return std::inner_product(jets.begin(), jets.end(), jets.begin(), int64_t{0}); }

/// f(sender, receiver, row of the pair, row of the sender's first pair, first constituent, number of constituents)
template <class F>
void each_pair(const Jets& jets, F f) {
  int64_t first = 0, pair = 0;
  for (int64_t n : jets) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) f(first + i, first + j, pair + i * n + j, first, n);
    first += n;
    pair += n * n;
  }
}

double square(const double* p) { return p[0] * p[0] - p[1] * p[1] - p[2] * p[2] - p[3] * p[3]; }

/// The formulas of the header.
Array naive(const Jets& jets, const PairVectorsOptions& o, const Array& p, const Array& logits) {
  const int64_t n = logits.shape[1], T = p.shape[0];
  Array y = zeros({T, n, 4});
  for (int64_t k = 0; k < n; ++k) {
    // Largest logits and sums of what a softmax runs over.
    std::vector<double> top(T, -INFINITY), sum(T);
    auto over = [&](int64_t i, int64_t j) { return o.softmax_over_receivers ? i : j; };
    each_pair(jets, [&](int64_t i, int64_t j, int64_t ij, int64_t, int64_t) {
      top[over(i, j)] = std::max(top[over(i, j)], logits.at(ij, k));
    });
    each_pair(jets, [&](int64_t i, int64_t j, int64_t ij, int64_t, int64_t) {
      sum[over(i, j)] += std::exp(logits.at(ij, k) - top[over(i, j)]);
    });
    each_pair(jets, [&](int64_t i, int64_t j, int64_t ij, int64_t, int64_t N) {
      const double x = logits.at(ij, k);
      double w = o.nonlinearity == EdgeWeight::exp        ? std::exp(std::clamp(x, -10., 10.))
                 : o.nonlinearity == EdgeWeight::softplus ? std::log1p(std::exp(-std::abs(x))) + std::max(x, 0.)
                                                          : std::exp(x - top[over(i, j)]) / sum[over(i, j)];
      double f[4];
      for (int c = 0; c < 4; ++c)
        f[c] = o.operation == EdgeMomentum::single
                   ? p.at(i, c)
                   : p.at(j, c) + (o.operation == EdgeMomentum::add ? 1 : -1) * p.at(i, c);
      if (o.fm_norm) w /= std::max(std::sqrt(std::abs(square(f))), 1e-6);
      if (o.aggregation == Pool::mean) w /= static_cast<double>(N);
      for (int c = 0; c < 4; ++c) y[(j * n + k) * 4 + c] += w * f[c];
    });
  }
  for (int64_t t = 0; o.layer_norm && t < T; ++t) {
    double s = 0;
    for (int64_t k = 0; k < n; ++k) s += square(&y[(t * n + k) * 4]);
    const double length = std::max(std::sqrt(std::abs(s)), 1e-5);
    for (int64_t m = 0; m < 4 * n; ++m) y[t * n * 4 + m] /= length;
  }
  return y;
}

std::vector<PairVectorsOptions> all_options() {
  std::vector<PairVectorsOptions> all;
  for (EdgeMomentum operation : {EdgeMomentum::add, EdgeMomentum::diff, EdgeMomentum::single})
    for (EdgeWeight nonlinearity : {EdgeWeight::softmax, EdgeWeight::exp, EdgeWeight::softplus})
      for (bool receivers : {false, true})
        for (Pool aggregation : {Pool::sum, Pool::mean})
          for (bool fm_norm : {false, true})
            for (bool layer_norm : {false, true})
              if (nonlinearity == EdgeWeight::softmax || !receivers)
                all.push_back({operation, nonlinearity, receivers, aggregation, fm_norm, layer_norm});
  return all;
}
std::string name_of(const PairVectorsOptions& o) {
  return fmt::format("operation {} weight {} over receivers {} aggregation {} fm_norm {} layer_norm {}",
                     static_cast<int>(o.operation), static_cast<int>(o.nonlinearity), o.softmax_over_receivers,
                     static_cast<int>(o.aggregation), o.fm_norm, o.layer_norm);
}

/// Vectors, then the gradients of momenta and logits.
std::vector<Array> with_gradients(const Jets& jets, const PairVectorsOptions& o, const Array& p, const Array& logits,
                                  DType dtype, DType momenta = DType::f64, Device device = Device::cpu) {
  Context ctx(device, 2);
  Tape tape(ctx);
  const Var x = tape.variable(to_tensor(ctx, p, momenta)), l = tape.variable(to_tensor(ctx, logits, dtype));
  const Var y = pair_vectors(x, l, offsets(ctx, jets), o);
  tape.backward(y, to_tensor(ctx, {y.shape(), normal({y.value().numel()}, 5).values}, momenta));
  return {to_array(y.value()), to_array(tape.gradient(x)), to_array(tape.gradient(l))};
}

bool finite(const std::vector<Array>& arrays) {
  for (const Array& a : arrays)
    for (double v : a.values)
      if (!std::isfinite(v)) return false;
  return true;
}

}  // namespace

TEST_CASE("pair_vectors, with every option") {
  for (const PairVectorsOptions& o : all_options()) {
    const Jets jets = {5, 1, 0, 18, 2};
    // Lengths whose squares cancel carry rounding on: 1e-9, as in test_edge_vectors.cpp.
    check_op({.name = "pair_vectors " + name_of(o),
              .inputs = {momenta(tokens_of(jets), 1, 10, 5), normal({pairs_of(jets), 3}, 2)},
              .op = [&](auto& x) { return std::vector{pair_vectors(x[0], x[1], offsets(x[0].context(), jets), o)}; },
              .oracle = [&](const std::vector<Array>& x) { return std::vector{naive(jets, o, x[0], x[1])}; },
              .dtypes = {DType::f64},
              .tolerance_factor = 1e3,
              .step = 1e-6});
  }
}

TEST_CASE("pair_vectors of other sizes, and f32 logits") {
  const PairVectorsOptions options;
  for (Device device : devices())
    for (const Jets& jets : {Jets{}, Jets{0}, Jets{1}, Jets{8}, Jets{33, 7}, Jets{9, 0, 16}})
      for (int64_t n : {1, 3}) {
        const Array p = momenta(tokens_of(jets), 1), l = normal({pairs_of(jets), n}, 2);
        const auto exact = with_gradients(jets, options, p, l, DType::f64, DType::f64, device);
        CHECK(relative_error(exact[0], naive(jets, options, p, l)) < 1e-10);
        Array rounded = l;
        for (double& v : rounded.values) v = static_cast<float>(v);
        const auto f64 = with_gradients(jets, options, p, rounded, DType::f64, DType::f64, device),
                   f32 = with_gradients(jets, options, p, rounded, DType::f32, DType::f64, device);
        CHECK(relative_error(f32[0], f64[0]) < 1e-14);  // weights are f64 in both
        CHECK(relative_error(f32[1], f64[1]) < 1e-14);
        if (pairs_of(jets)) CHECK(relative_error(f32[2], f64[2]) < 1e-6);
      }
}

TEST_CASE("pair_vectors: degenerate momenta give finite results and gradients") {
  const std::vector<double> special = {
      5,    0, 0,    5, 10,  0,   0, 10, 3, 0, 0, 3,   // light-like and collinear
      7,    1, 2,    3, 7,   1,   2, 3,                // equal
      0,    0, 0,    0,                                // nothing
      1,    0, 0,    2, 1,   0,   0, -2, 1, 0, 3, 0,   // space-like
      1e-8, 0, 1e-8, 0, 1e6, 1e6, 0, 0,  5, 0, 0, -5,  // tiny, huge, back to back
  };
  for (const PairVectorsOptions& o : all_options())
    for (DType dtype : {DType::f64, DType::f32})
      for (const Jets& jets : {Jets{12}, {3, 2, 1, 3, 3}, {2, 1, 3, 1, 1, 1, 1, 2}})
        for (double width : {1., 1000.}) {
          // The one jet has all of their pairs: enough for a simulated GPU.
          for (Device device : jets.size() == 1 ? devices() : std::vector{Device::cpu}) {
            // Weights of e^10 over norms of 1e-6: gradients beyond the range of f32.
            const DType of_momenta = width > 1 ? DType::f64 : dtype;
            CHECK_MESSAGE(finite(with_gradients(jets, o, {{12, 4}, special}, normal({pairs_of(jets), 3}, 2, width),
                                                dtype, of_momenta, device)),
                          name_of(o));
          }
        }
}

TEST_CASE("pair_vectors: a logit of -inf weighs nothing; a softmax over nothing else is NaN") {
  const Jets jets = {3, 19, 1};
  const int64_t n = 2;
  const Array p = momenta(tokens_of(jets), 1);
  for (bool receivers : {false, true})
    for (bool all : {false, true}) {
      const PairVectorsOptions o{.softmax_over_receivers = receivers};
      Array l = normal({pairs_of(jets), n}, 2);
      // Of constituent 1 of the middle jet all logits 1, of constituent 2 every other one.
      each_pair(jets, [&](int64_t i, int64_t j, int64_t ij, int64_t first, int64_t N) {
        const int64_t own = (receivers ? i : j) - first, partner = (receivers ? j : i) - first;
        if (N == 19 && ((all && own == 1) || (own == 2 && partner % 2))) l.at(ij, 1) = -INFINITY;
      });
      const Array expected = naive(jets, o, p, l);
      CHECK(finite({expected}) == !all);
      const auto cpu = with_gradients(jets, o, p, l, DType::f64);
      for (Device device : devices()) {
        CAPTURE(receivers);
        CAPTURE(all);
        const auto there = with_gradients(jets, o, p, l, DType::f64, DType::f64, device);
        CHECK(relative_error(there[0], expected) < 1e-10);
        for (size_t i = 1; i < 3; ++i) CHECK(relative_error(there[i], cpu[i]) < 1e-10);
        CHECK(finite({there[1], there[2]}) == !all);
      }
    }
}

TEST_CASE("pair_vectors turn and boost with the momenta") {
  const Jets jets = {5, 1, 9, 2};
  const Array p = momenta(17, 1), l = normal({pairs_of(jets), 3}, 2);
  for (const PairVectorsOptions& o : all_options()) {
    Array y = with_gradients(jets, o, p, l, DType::f64)[0];
    for (const Lorentz& lambda : lorentz_transformations(3))
      CHECK_MESSAGE(relative_error(with_gradients(jets, o, transformed(lambda, p), l, DType::f64)[0],
                                   transformed(lambda, y)) < 1e-9,
                    name_of(o));
  }
}

TEST_CASE("pair_masses") {
  Jets many;  // more than a block of threads
  for (int64_t b = 0; b < 300; ++b) many.push_back(b % 3);
  for (const Jets& jets : {Jets{5, 1, 0, 18, 2}, Jets{}, Jets{1}, Jets{70}, many}) {
    auto oracle = [&](const std::vector<Array>& x) {
      Array e = zeros({pairs_of(jets), 1});
      each_pair(jets, [&](int64_t i, int64_t j, int64_t ij, int64_t, int64_t) {
        double s[4];
        for (int c = 0; c < 4; ++c) s[c] = x[0].at(i, c) + x[0].at(j, c);
        e[ij] = (std::log(std::max(square(s), 1e-10)) - 5) / 1.5;
      });
      return std::vector{e};
    };
    // Squares that cancel carry rounding on.
    check_op({.name = "pair_masses",
              .inputs = {momenta(tokens_of(jets), 1, 10, 5)},
              .op =
                  [&](auto& x) {
                    return std::vector{pair_masses(x[0], offsets(x[0].context(), jets), 5, 1.5, x[0].dtype())};
                  },
              .oracle = oracle,
              .dtypes = {DType::f64},
              .tolerance_factor = 100,
              .step = 1e-6});
  }
  // Light-like pairs: the bound, and no gradient.
  for (Device device : devices()) {
    Context ctx(device, 1);
    Tape tape(ctx);
    const Var p = tape.variable(ctx.of({2, 4}, DType::f64, std::vector<double>{5, 0, 0, 5, 1, 0, 0, 1}));
    const Var e = pair_masses(p, offsets(ctx, {2}), 0, 1, DType::f32);
    tape.backward(e, ctx.of({4, 1}, DType::f32, std::vector<double>{1, 1, 1, 1}));
    for (double v : to_array(e.value()).values) CHECK(v == doctest::Approx(std::log(1e-10)));
    for (double v : to_array(tape.gradient(p)).values) CHECK(v == 0);
  }
}

TEST_CASE("pair_products") {
  for (const Jets& jets : {Jets{5, 1, 0, 18, 2}, Jets{}, Jets{33}})
    for (auto [n, D] : {std::pair<int64_t, int64_t>{3, 5}, {1, 1}, {2, 40}})
      check_op({.name = fmt::format("pair_products {} {}", n, D),
                .inputs = {normal({tokens_of(jets), n * D}, 1), normal({tokens_of(jets), n * D}, 2)},
                .op = [&, n = n](
                          auto& x) { return std::vector{pair_products(x[0], x[1], offsets(x[0].context(), jets), n)}; },
                .oracle =
                    [&, n = n, D = D](const std::vector<Array>& x) {
                      Array y = zeros({pairs_of(jets), n});
                      each_pair(jets, [&](int64_t i, int64_t j, int64_t ij, int64_t, int64_t) {
                        for (int64_t m = 0; m < n * D; ++m) y.at(ij, m / D) += x[0].at(i, m) * x[1].at(j, m);
                      });
                      return std::vector{y};
                    },
                .dtypes = {DType::f64, DType::f32}});
}

TEST_CASE("pair_vectors refuse what does not fit") {
  Context ctx(1);
  Tape tape(ctx);
  auto var = [&](Shape shape, DType dtype = DType::f64) { return tape.constant(ctx.zeros(shape, dtype)); };
  const Tensor ptr = offsets(ctx, {2, 3});
  const PairVectorsOptions o;
  CHECK_THROWS_WITH_AS(pair_vectors(var({5, 4}), var({12, 3}), ptr, o),
                       "pair_vectors: logits has 12 rows, expected 13, one for each pair", Error);
  CHECK_THROWS_WITH_AS(pair_vectors(var({5, 4}), var({13, 0}), ptr, o),
                       "pair_vectors: logits has 0 columns, expected one for each vector", Error);
  CHECK_THROWS_WITH_AS(pair_vectors(var({5, 3}), var({13, 3}), ptr, o),
                       "pair_vectors: p has shape [5, 3], expected 4 entries along the last axis", Error);
  CHECK_THROWS_WITH_AS(pair_vectors(var({4, 4}), var({13, 3}), ptr, o),
                       doctest::Contains("pair_vectors: ptr ends at 5"), Error);
  CHECK_THROWS_WITH_AS(pair_masses(var({5, 4}), ptr, 0, 0, DType::f64),
                       "pair_masses: mean is 0 and std is 0, expected finite numbers and a positive std", Error);
  CHECK_THROWS_WITH_AS(pair_products(var({5, 4}), var({5, 4}), ptr, 3),
                       "pair_products: q has 4 columns for 3 products, expected a multiple", Error);
  CHECK_THROWS_WITH_AS(pair_products(var({5, 6}), var({5, 4}), ptr, 3),
                       "pair_products: k has shape [5, 4], expected [5, 6]", Error);
}

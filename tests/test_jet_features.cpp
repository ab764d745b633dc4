#include <doctest/doctest.h>

#include <cmath>

#include "autograd/jet_features.h"
#include "tests/support/devices.h"
#include "tests/support/lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
constexpr TaggingFeatures selections[] = {TaggingFeatures::none, TaggingFeatures::all, TaggingFeatures::zinvariant,
                                          TaggingFeatures::so3invariant};

// The table of the header, one feature after the other.
Array expected(TaggingFeatures which, const Array& p, const Array& jet) {
  constexpr double e = 1e-10;
  auto log_pt = [&](const Array& v, int64_t t) {
    return std::log(std::sqrt(std::max(std::pow(v.at(t, 1), 2) + std::pow(v.at(t, 2), 2), e)));
  };
  auto phi = [&](const Array& v, int64_t t) {
    auto keep_off = [](double x) { return std::abs(x) < e ? e : x; };
    return std::atan2(keep_off(v.at(t, 2)), keep_off(v.at(t, 1)));
  };
  auto eta = [&](const Array& v, int64_t t) {
    const double p2 = std::pow(v.at(t, 1), 2) + std::pow(v.at(t, 2), 2) + std::pow(v.at(t, 3), 2);
    const double x = v.at(t, 3) / std::sqrt(std::max(p2, e));
    return (std::log(std::max(1 + x, e)) - std::log(std::max(1 - x, e))) / 2;
  };
  std::vector<int> columns;
  if (which == TaggingFeatures::all) columns = {0, 1, 2, 3, 4, 5, 6};
  if (which == TaggingFeatures::zinvariant) columns = {0, 2, 4, 5, 6};
  if (which == TaggingFeatures::so3invariant) columns = {1, 3};
  Array y = zeros({p.shape[0], static_cast<int64_t>(columns.size())});
  for (int64_t t = 0; t < p.shape[0]; ++t) {
    const double log_E = std::log(std::max(p.at(t, 0), e)), log_E_jet = std::log(std::max(jet.at(t, 0), e));
    const double turn = phi(p, t) - phi(jet, t) + M_PI;
    const double dphi = turn - 2 * M_PI * std::floor(turn / (2 * M_PI)) - M_PI, deta = eta(jet, t) - eta(p, t);
    const double f[7] = {(log_pt(p, t) - 1.7) * 0.7,
                         (log_E - 2) * 0.7,
                         (log_pt(p, t) - log_pt(jet, t) + 4.7) * 0.7,
                         (log_E - log_E_jet + 4.7) * 0.7,
                         dphi,
                         deta,
                         (std::sqrt(std::max(dphi * dphi + deta * deta, e)) - 0.2) * 4};
    for (size_t c = 0; c < columns.size(); ++c) y.at(t, c) = f[columns[c]];
  }
  return y;
}

Array evaluate(Device device, TaggingFeatures which, const Array& p, const Array& jet) {
  Context ctx(device, 1);
  Tape tape(ctx, Tape::Mode::evaluate);
  auto of = [&](const Array& a) { return tape.constant(to_tensor(ctx, a, DType::f64)); };
  return to_array(jet_features(of(p), of(jet), which, DType::f64).value());
}
}  // namespace

TEST_CASE("jet_features") {
  for (TaggingFeatures which : selections)
    for (int64_t T : {0, 1, 31, 64, 65, 1091})
      check_op({.name = fmt::format("jet_features {} of {} tokens", static_cast<int>(which), T),
                .inputs = {momenta(T, 1), momenta(T, 2, 80, 50)},
                .op = [&](auto& x) { return std::vector{jet_features(x[0], x[1], which, x[0].dtype())}; },
                .oracle = [&](const auto& x) { return std::vector{expected(which, x[0], x[1])}; },
                .dtypes = {DType::f64, DType::f32},
                .step = 1e-7});
}

TEST_CASE("jet_features: f64 momenta, features and their cotangent in the network's dtype") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    const Array p = momenta(33, 1), jet = momenta(33, 2, 80, 50), cotangent = normal({33, 7}, 3);
    auto run = [&](DType dtype, const Array& dy) {
      Tape tape(ctx);
      const Var x = tape.variable(to_tensor(ctx, p, DType::f64)), j = tape.variable(to_tensor(ctx, jet, DType::f64));
      const Var y = jet_features(x, j, TaggingFeatures::all, dtype);
      tape.backward(y, to_tensor(ctx, dy, dtype));
      return std::vector{to_array(y.value()), to_array(tape.gradient(x)), to_array(tape.gradient(j))};
    };
    for (DType dtype : {DType::f32, DType::bf16}) {
      const Array rounded = to_array(to_tensor(ctx, cotangent, dtype));
      const auto low = run(dtype, rounded), exact = run(DType::f64, rounded);
      CHECK(low[0].values == to_array(to_tensor(ctx, exact[0], dtype)).values);
      CHECK(low[1].values == exact[1].values);
      CHECK(low[2].values == exact[2].values);
    }
  }
}

TEST_CASE("jet_features: bits do not depend on the alignment") {
  const int64_t T = 37;
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32}) {
      Context ctx(device, 1);
      auto run = [&](int64_t offset) {
        auto place = [&](int64_t cols) {
          return ctx.empty({offset + T * cols}, dtype).narrow(offset, T * cols).reshape({T, cols});
        };
        auto of = [&](const Array& a) {
          Tensor there = place(a.shape[1]);
          const Tensor from = to_tensor(ctx, a, dtype);
          ctx.allocator().copy_within(there.raw(), from.raw(), from.bytes());
          return there;
        };
        const Tensor p = of(momenta(T, 1)), jet = of(momenta(T, 2, 80, 50)), dy = of(normal({T, 7}, 3));
        Tensor y = place(7), dp = place(4), djet = place(4);
        kernels::jet_features(ctx, TaggingFeatures::all, p, jet, y);
        kernels::jet_features_backward(ctx, TaggingFeatures::all, dy, p, jet, &dp, &djet);
        return std::vector{to_array(y), to_array(dp), to_array(djet)};
      };
      const auto aligned = run(0), behind = run(1);
      for (size_t i = 0; i < 3; ++i) CHECK(aligned[i].values == behind[i].values);
    }
}

TEST_CASE("jet_features: one wanted gradient") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    for (bool of_jet : {false, true}) {
      Tape tape(ctx);
      const Tensor p = to_tensor(ctx, momenta(5, 1), DType::f64), jet = to_tensor(ctx, momenta(5, 2, 80), DType::f64);
      const Var x = of_jet ? tape.constant(p) : tape.variable(p), j = of_jet ? tape.variable(jet) : tape.constant(jet);
      const Var y = jet_features(x, j, TaggingFeatures::all, DType::f64);
      tape.backward(y, to_tensor(ctx, normal({5, 7}, 3), DType::f64));
      CHECK(tape.gradient(of_jet ? j : x).defined());
    }
  }
}

TEST_CASE("jet_features: clamps, wrapping and a jet at rest") {
  for (Device device : devices()) {
    // Constituent and jet: nothing at all; along the beam; the jet itself; back to back; across the cut of phi; jet at
    // rest.
    const Array p = {{6, 4}, {0, 0, 0, 0, 5, 0, 0, 5, 5, 3, 0, 4, 5, 3, 3, 4, 5, -3, 1e-3, 4, 5, 0, 3, 4}};
    const Array jet = {{6, 4},
                       {9, 1, 2, 3, 9, 1, 2, 3, 5, 3, 0, 4, 9, -6, -6, 1, 9, -3, -1e-3, 1, 9, 1e-13, -1e-12, 0}};
    const Array y = evaluate(device, TaggingFeatures::all, p, jet), e = expected(TaggingFeatures::all, p, jet);
    for (size_t i = 0; i < y.values.size(); ++i) {
      CAPTURE(i);
      CHECK(y.values[i] == doctest::Approx(e.values[i]).epsilon(1e-9));
    }
    CHECK(y.at(2, 6) == doctest::Approx((1e-5 - 0.2) * 4));         // no distance
    CHECK(y.at(3, 4) == doctest::Approx(-M_PI));                    // and not +pi
    CHECK(y.at(4, 4) == doctest::Approx(-2e-3 / 3).epsilon(1e-6));  // not 2 pi less
    CHECK(y.at(5, 4) == doctest::Approx(M_PI / 4));                 // phi_jet = pi / 4
    Context ctx(device, 1);
    Tape tape(ctx);
    const Var x = tape.variable(to_tensor(ctx, p, DType::f64)), j = tape.variable(to_tensor(ctx, jet, DType::f64));
    tape.backward(jet_features(x, j, TaggingFeatures::all, DType::f64), to_tensor(ctx, normal({6, 7}, 3), DType::f64));
    for (double v : to_array(tape.gradient(x)).values) CHECK(std::isfinite(v));
    for (double v : to_array(tape.gradient(j)).values) CHECK(std::isfinite(v));
    // The clamped components of the jet at rest and of the empty constituent have none.
    CHECK(to_array(tape.gradient(j)).at(5, 1) == 0);
    CHECK(to_array(tape.gradient(x)).at(0, 0) == 0);
  }
}

TEST_CASE("jet_features: what the selections are invariant under") {
  for (Device device : devices()) {
    // Massless, so that pseudorapidities shift together under boosts along the beam.
    const Array p = momenta(33, 1, 0), jet = momenta(33, 2, 0, 50);
    auto change = [&](TaggingFeatures which, const Lorentz& L) {
      return relative_error(evaluate(device, which, transformed(L, p), transformed(L, jet)),
                            evaluate(device, which, p, jet));
    };
    const Lorentz about_beam = rotation(0.7, {0, 0, 1});
    for (TaggingFeatures which : selections) CHECK(change(which, about_beam) < 1e-12);
    for (double rapidity : {0.1, 1.0, 3.0}) {
      CHECK(change(TaggingFeatures::zinvariant, boost(rapidity, {0, 0, 1})) < 1e-12);
      CHECK(change(TaggingFeatures::all, boost(rapidity, {0, 0, 1})) > 1e-3);
    }
    CHECK(change(TaggingFeatures::so3invariant, random_rotation(3)) < 1e-12);
    CHECK(change(TaggingFeatures::zinvariant, random_rotation(3)) > 1e-3);
  }
}

TEST_CASE("jet_features refuses bad input") {
  for (Device device : devices()) {
    Context ctx(device);
    Tape tape(ctx);
    auto of = [&](Shape shape, DType dtype = DType::f64) { return tape.constant(ctx.zeros(shape, dtype)); };
    auto features = [](const Var& p, const Var& jet, DType dtype = DType::f32) {
      return jet_features(p, jet, TaggingFeatures::all, dtype);
    };
    CHECK_THROWS_WITH_AS(features(of({3, 3}), of({3, 3})),
                         "jet_features: p has shape [3, 3], expected 4 entries along the last axis", Error);
    CHECK_THROWS_WITH_AS(features(of({3, 4}), of({1, 4})), "jet_features: jet has shape [1, 4], expected [3, 4]",
                         Error);
    CHECK_THROWS_WITH_AS(features(of({3, 4}), of({3, 4}, DType::f32)), "jet_features: jet is f32, expected f64", Error);
    CHECK_THROWS_WITH_AS(features(of({3, 4}), of({3, 4}), DType::i32),
                         "jet_features: y is i32, expected f64, f32 or bf16", Error);
    CHECK_THROWS_WITH_AS(kernels::tagging_features_from("zinv"),
                         "tagging_features: unknown selection 'zinv'; expected all, zinvariant, so3invariant or null",
                         Error);
  }
}

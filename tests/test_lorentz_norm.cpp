#include "autograd/lorentz_norm.h"

#include <doctest/doctest.h>

#include "kernels/lorentz_norm.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/lorentz.h"
#include "tests/support/naive_lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Size {
  int64_t T, groups, Cv, Cs;
};
// Groups below, at and above a register (4 to 16 numbers), channels of one kind alone.
const std::vector<Size> sizes = {{0, 1, 3, 2},   {1, 1, 1, 1},  {3, 1, 32, 96}, {5, 24, 4, 12}, {7, 3, 16, 16},
                                 {33, 2, 5, 17}, {2, 6, 17, 3}, {4, 2, 0, 5},   {4, 2, 3, 0},   {300, 3, 2, 4}};

}  // namespace

TEST_CASE("lorentz_norm") {
  for (auto [T, groups, Cv, Cs] : sizes)
    check_op({.name = fmt::format("lorentz_norm T {} groups {} Cv {} Cs {}", T, groups, Cv, Cs),
              .inputs = {normal({T, 4, groups * Cv}, 1), normal({T, groups * Cs}, 2)},
              .op =
                  [groups = groups](auto& x) {
                    const LorentzVar y = lorentz_norm({x[0], x[1]}, 0.01, groups);
                    return std::vector{y.vectors, y.scalars};
                  },
              .oracle =
                  [groups = groups](auto& x) {
                    const LorentzArray y = naive_lorentz_norm({x[0], x[1]}, groups, 0.01);
                    return std::vector{y.v, y.s};
                  }});
}

TEST_CASE("lorentz_norm of transformed vectors is the transformed norm") {
  const Array p = momenta(60, 1), s = normal({12, 3}, 2);
  for (Device device : devices()) {
    auto normed = [&](const Array& p) {
      Context ctx(device, 1);
      Array v = p;
      v.shape = {12, 5, 4};
      const Array in = components_last(v);
      Tensor yv = ctx.empty(in.shape, DType::f64), ys = ctx.empty(s.shape, DType::f64);
      kernels::lorentz_norm(ctx, to_tensor(ctx, in, DType::f64), to_tensor(ctx, s, DType::f64), 1, 0.01, yv, ys);
      Array out = components_last(to_array(yv));
      out.shape = p.shape;
      return std::pair{out, to_array(ys)};
    };
    const auto [v, scalars] = normed(p);
    for (const Lorentz& a : lorentz_transformations(3)) {
      const auto [there, same] = normed(transformed(a, p));
      CHECK(relative_error(there, transformed(a, v)) < 1e-9);
      CHECK(relative_error(same, scalars) < 1e-9);
    }
  }
}

TEST_CASE("lorentz_norm: zeros, light-like and huge tokens have finite results and gradients, in place too") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (Device device : devices()) {
      Context ctx(device, 1);
      Array v = normal({5, 4, 2}, 1), s = normal({5, 2}, 2);
      for (int64_t i = 0; i < 8; ++i) v[i] = 0, v[8 + i] = i < 2 || i > 5, v[16 + i] = 1e4 * (i < 2 || i > 5);
      for (int64_t i = 0; i < 6; ++i) s[i] = 0;
      Tensor in_v = to_tensor(ctx, v, dtype), in_s = to_tensor(ctx, s, dtype), yv = ctx.empty(in_v.shape(), dtype),
             ys = ctx.empty(in_s.shape(), dtype), dv = as(ctx, in_v, dtype), ds = as(ctx, in_s, dtype);
      kernels::lorentz_norm(ctx, in_v, in_s, 2, 0.01, yv, ys);
      kernels::lorentz_norm_backward(ctx, dv, ds, in_v, in_s, 2, 0.01, dv, ds);
      for (const Tensor& t : {yv, ys, dv, ds})
        for (double x : to_array(t).values) CHECK(std::isfinite(x));
      CHECK(to_array(yv)[8] == doctest::Approx(10));  // a light-like vector of 1 without scalars: 1 / sqrt(eps)
      kernels::lorentz_norm(ctx, in_v, in_s, 2, 0.01, in_v, in_s);
      CHECK(same_bits(in_v, yv));
      CHECK(same_bits(in_s, ys));
    }
  }
}

TEST_CASE("lorentz_norm refuses bad shapes") {
  Context ctx;
  Tape tape(ctx);
  auto refused = [&](Shape v, Shape s, int64_t groups, const char* message) {
    CHECK_THROWS_WITH_AS(
        lorentz_norm({tape.constant(ctx.zeros(v, DType::f32)), tape.constant(ctx.zeros(s, DType::f32))}, 0.01, groups),
        message, Error);
  };
  refused({2, 3, 4}, {2, 5}, 1, "lorentz_norm: v has shape [2, 3, 4], expected 4 components along its second axis");
  refused({2, 4}, {2, 5}, 1, "lorentz_norm: v has shape [2, 4], expected 3 axes");
  refused({2, 4, 4}, {3, 5}, 1, "lorentz_norm: s has 3 tokens, v has 2");
  refused({2, 4, 4}, {2, 6}, 4, "lorentz_norm: 4 vector and 6 scalar channels in 4 groups, expected multiples");
  refused({2, 4, 4}, {2, 6}, 0, "lorentz_norm: 4 vector and 6 scalar channels in 0 groups, expected multiples");
  refused({2, 4, 0}, {2, 0}, 1, "lorentz_norm: v and s have 0 channels");
}

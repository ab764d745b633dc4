#include <doctest/doctest.h>

#include <cmath>

#include "autograd/norm.h"
#include "kernels/norm.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("layer_norm") {
  for (Shape shape : {Shape{0, 8}, {1, 1}, {1, 31}, {3, 33}, {33, 128}, {257, 129}, {3, 1025}, {2, 2048}}) {
    check_op({.name = fmt::format("layer_norm {}", shape),
              .inputs = {normal(shape, 1)},
              .op = [](auto& x) { return std::vector{layer_norm(x[0], 1e-5)}; },
              .oracle =
                  [](const std::vector<Array>& x) {
                    Array y = zeros(x[0].shape);
                    const int64_t T = y.shape[0], C = y.shape[1];
                    for (int64_t t = 0; t < T; ++t) {
                      double mean = 0, var = 0;
                      for (int64_t c = 0; c < C; ++c) mean += x[0].at(t, c) / C;
                      for (int64_t c = 0; c < C; ++c) var += std::pow(x[0].at(t, c) - mean, 2) / C;
                      for (int64_t c = 0; c < C; ++c) y.at(t, c) = (x[0].at(t, c) - mean) / std::sqrt(var + 1e-5);
                    }
                    return std::vector{y};
                  }});
  }
}

TEST_CASE("rms_norm") {
  for (Shape shape : {Shape{0, 8}, {1, 1}, {1, 31}, {3, 33}, {33, 128}, {257, 129}, {3, 1025}, {2, 2048}}) {
    // A single column has the gradient eps rstd^2 of its terms: with x far above sqrt(eps) only their rounding is left.
    check_op({.name = fmt::format("rms_norm {}", shape),
              .inputs = {normal(shape, 1, shape[1] == 1 ? 0.03 : 1)},
              .op = [](auto& x) { return std::vector{rms_norm(x[0], 1e-3)}; },
              .oracle =
                  [](const std::vector<Array>& x) {
                    Array y = zeros(x[0].shape);
                    const int64_t T = y.shape[0], C = y.shape[1];
                    for (int64_t t = 0; t < T; ++t) {
                      double square = 0;
                      for (int64_t c = 0; c < C; ++c) square += std::pow(x[0].at(t, c), 2) / C;
                      for (int64_t c = 0; c < C; ++c) y.at(t, c) = x[0].at(t, c) / std::sqrt(square + 1e-3);
                    }
                    return std::vector{y};
                  }});
  }
}

namespace {

struct Norm {
  const char* name;
  decltype(kernels::layer_norm)* forward;
  decltype(kernels::layer_norm_backward)* backward;
};
constexpr Norm norms[] = {{"layer_norm", kernels::layer_norm, kernels::layer_norm_backward},
                          {"rms_norm", kernels::rms_norm, kernels::rms_norm_backward}};

/// Rows and columns around registers and pairs of them (4 to 16 elements, 8 to 32).
template <class F>
void at_edges(F&& f) {
  for (const Norm& norm : norms)
    for (int64_t rows : {0, 1, 5})
      for (int64_t columns : {1, 3, 15, 16, 17, 31, 32, 33, 47, 128, 130}) {
        INFO(norm.name, " [", rows, ", ", columns, "]");
        f(norm, Shape{rows, columns});
      }
}

}  // namespace

TEST_CASE("a normalised row in bf16 is that of f32, rounded") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 1);
    ctx.allocator().set_guard(true);
    at_edges([&](const Norm& norm, Shape shape) {
      const Tensor x = to_tensor(ctx, normal(shape, 1), DType::f32);
      Tensor y = ctx.empty(shape, DType::f32), small = ctx.empty(shape, DType::bf16),
             rstd = ctx.empty({shape[0]}, DType::f32), same = ctx.empty({shape[0]}, DType::f32);
      norm.forward(ctx, x, 1e-5, y, rstd);
      norm.forward(ctx, x, 1e-5, small, same);
      CHECK(same_bits(small, as(ctx, y, DType::bf16)));
      CHECK(same_bits(same, rstd));
      // In place.
      Tensor in_place = as(ctx, x, DType::f32);
      norm.forward(ctx, in_place, 1e-5, in_place, same);
      CHECK(same_bits(in_place, y));
    });
    CHECK(ctx.allocator().guard_violations() == 0);
  }
}

TEST_CASE("the backward of a norm reads y and dy in bf16 as f32 with the same numbers") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 1);
    ctx.allocator().set_guard(true);
    at_edges([&](const Norm& norm, Shape shape) {
      const Tensor y = bf16_values(ctx, normal(shape, 1)), dy = bf16_values(ctx, normal(shape, 2)),
                   rstd = to_tensor(ctx, uniform({shape[0]}, 3, 0.5, 2), DType::f32),
                   more = to_tensor(ctx, normal(shape, 4), DType::f32);
      for (const Tensor& add : {Tensor(), more}) {
        Tensor exact = ctx.empty(shape, DType::f32), dx = ctx.empty(shape, DType::f32);
        norm.backward(ctx, dy, y, rstd, add, exact);
        norm.backward(ctx, as(ctx, dy, DType::bf16), as(ctx, y, DType::bf16), rstd, add, dx);
        CHECK(same_bits(dx, exact));
        // In the place of what is added, or of dy.
        Tensor in_place = as(ctx, add.defined() ? add : dy, DType::f32);
        norm.backward(ctx, add.defined() ? dy : in_place, y, rstd, add.defined() ? in_place : add, in_place);
        CHECK(same_bits(in_place, exact));
      }
    });
    CHECK(ctx.allocator().guard_violations() == 0);
  }
}

TEST_CASE("norms have the same bits for any number of threads") {
  for (const Norm& norm : norms)
    for (DType out : {DType::f32, DType::bf16}) {
      std::vector<Tensor> ys, dxs;
      for (int threads : {1, 2, 3}) {
        Context ctx(threads);
        const Shape shape{700, 130};
        Tensor y = ctx.empty(shape, out), dx = ctx.empty(shape, DType::f32), rstd = ctx.empty({700}, DType::f32);
        norm.forward(ctx, to_tensor(ctx, normal(shape, 1), DType::f32), 1e-5, y, rstd);
        norm.backward(ctx, to_tensor(ctx, normal(shape, 2), out), y, rstd, {}, dx);
        ys.push_back(y), dxs.push_back(dx);
      }
      for (size_t i = 1; i < ys.size(); ++i) {
        CHECK(same_bits(ys[i], ys[0]));
        CHECK(same_bits(dxs[i], dxs[0]));
      }
    }
}

// A mean of 1e3 must leave the spread of 1 intact. Of the mean, f32 loses at most 1e3 2^-24 per addition that follows
// another (n / 8 in the shortest pair of registers, and 10 around them); the result loses that, and of its scale,
// which has the variance of n terms, as much in units of it.
TEST_CASE("layer_norm of long rows far from zero") {
  for (Device device : devices())
    for (int64_t n : {1000, 4096, 20'001}) {
      const Array spread = normal({1, n}, 1);
      Array x = spread;
      for (double& v : x.values) v += 1e3;
      Context ctx(device, 1);
      const Tensor in = to_tensor(ctx, x, DType::f32);
      x = to_array(in);
      double mean = 0, variance = 0;
      for (double v : x.values) mean += v / n;
      for (double v : x.values) variance += (v - mean) * (v - mean) / n;
      Tensor y = ctx.empty({1, n}, DType::f32), rstd = ctx.empty({1}, DType::f32);
      kernels::layer_norm(ctx, in, 1e-5, y, rstd);
      const Array result = to_array(y);
      double worst = 0;
      for (int64_t i = 0; i < n; ++i)
        worst = std::max(worst, std::abs(result[i] - (x[i] - mean) / std::sqrt(variance + 1e-5)));
      CAPTURE(worst);
      CHECK(worst <= (n / 8. + 10) * 0x1p-24 * 1e3);
    }
}

TEST_CASE("norms in bf16 for products, and what they refuse") {
  Context ctx(1);
  Tape tape(ctx);
  const Var x = tape.variable(to_tensor(ctx, normal({6, 33}, 1), DType::f32));
  const Tensor dy = to_tensor(ctx, normal({6, 33}, 2), DType::bf16);
  for (auto norm : {layer_norm, rms_norm}) {
    const Var y = norm(x, 1e-5, DType::bf16);
    CHECK(same_bits(y.value(), as(ctx, norm(x, 1e-5, {}).value(), DType::bf16)));
    CHECK(y.dtype() == DType::bf16);
    CHECK(norm(x, 1e-5, {}).dtype() == DType::f32);
  }
  tape.backward(layer_norm(x, 1e-5, DType::bf16), dy);
  CHECK(tape.gradient(x).dtype() == DType::f32);
  auto of = [&](DType dtype) { return tape.constant(ctx.zeros({4, 2}, dtype)); };
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
  REFUSED("layer_norm: y is bf16, expected f64", layer_norm(of(DType::f64), 1e-5, DType::bf16));
  REFUSED("layer_norm: y is f32, expected bf16", layer_norm(of(DType::bf16), 1e-5, DType::f32));
  REFUSED("layer_norm: y is f64, expected f32 or bf16", layer_norm(of(DType::f32), 1e-5, DType::f64));
  REFUSED("rms_norm: y is f16, expected f32 or bf16", rms_norm(of(DType::f32), 1e-5, DType::f16));
  auto zeros = [&](DType dtype) { return ctx.zeros({4, 2}, dtype); };
  const Tensor rstd = ctx.zeros({4}, DType::f32);
  Tensor dx = zeros(DType::f32);
  auto back = [&](DType dy, DType y, const Tensor& add, const Tensor& rstd) {
    kernels::layer_norm_backward(ctx, zeros(dy), zeros(y), rstd, add, dx);
  };
  REFUSED("layer_norm_backward: dy is f32, expected bf16", back(DType::f32, DType::bf16, {}, rstd));
  REFUSED("layer_norm_backward: dy is bf16, expected f32", back(DType::bf16, DType::f32, {}, rstd));
  REFUSED("layer_norm_backward: y is f64, expected f32 or bf16", back(DType::f64, DType::f64, {}, rstd));
  REFUSED("layer_norm_backward: add is bf16, expected f32", back(DType::bf16, DType::bf16, zeros(DType::bf16), rstd));
  REFUSED("layer_norm_backward: rstd is bf16, expected f32",
          back(DType::bf16, DType::bf16, {}, ctx.zeros({4}, DType::bf16)));
#undef REFUSED
}

TEST_CASE("layer_norm refuses bad shapes") {
  Context ctx;
  Tape tape(ctx);
  CHECK_THROWS_WITH_AS(layer_norm(tape.constant(ctx.zeros({4, 0}, DType::f32))), "layer_norm: x has 0 columns", Error);
  CHECK_THROWS_WITH_AS(layer_norm(tape.constant(ctx.zeros({4}, DType::f32))),
                       "layer_norm: x has shape [4], expected 2 axes", Error);
  CHECK_THROWS_WITH_AS(layer_norm(tape.constant(ctx.zeros({4, 2}, DType::i32))),
                       "layer_norm: x is i32, expected f64, f32 or bf16", Error);
}

TEST_CASE("rms_norm refuses bad shapes") {
  Context ctx;
  Tape tape(ctx);
  CHECK_THROWS_WITH_AS(rms_norm(tape.constant(ctx.zeros({4, 0}, DType::f32))), "rms_norm: x has 0 columns", Error);
  CHECK_THROWS_WITH_AS(rms_norm(tape.constant(ctx.zeros({4}, DType::f32))),
                       "rms_norm: x has shape [4], expected 2 axes", Error);
  CHECK_THROWS_WITH_AS(rms_norm(tape.constant(ctx.zeros({4, 2}, DType::i32))),
                       "rms_norm: x is i32, expected f64, f32 or bf16", Error);
}

#include "autograd/gated_unit.h"

#include <doctest/doctest.h>

#include "kernels/gated_unit.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/lorentz.h"
#include "tests/support/naive_lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Function {
  Unary f;
  double (*value)(double);
};
const Function functions[] = {{Unary::gelu, gelu},
                              {Unary::relu, [](double x) { return std::max(x, 0.0); }},
                              {Unary::silu, [](double x) { return x / (1 + std::exp(-x)); }},
                              {Unary::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }},
                              {Unary::tanh, [](double x) { return std::tanh(x); }}};

}  // namespace

TEST_CASE("gated_unit") {
  // Around registers, and the blocks of 16 tokens and 64 numbers.
  for (auto [T, C] : {std::pair<int64_t, int64_t>{0, 3}, {1, 1}, {5, 0}, {17, 16}, {33, 19}, {300, 4}})
    for (const Function& f : functions) {
      auto one = [&](const char* name, Shape shape, Array (*naive)(const Array&, double (*)(double))) {
        check_op({.name = fmt::format("gated_unit {} {} f {}", name, shape, int(f.f)),
                  .inputs = {normal(shape, 1)},
                  .op = [&](auto& x) { return std::vector{gated_unit(x[0], f.f)}; },
                  .oracle = [&](auto& x) { return std::vector{naive(x[0], f.value)}; }});
      };
      one("vectors", {T, 4, 3 * C}, naive_gated_vectors);
      one("scalars", {T, 2 * C}, naive_gated_scalars);
    }
}

TEST_CASE("gated_unit of transformed vectors is the transformed result") {
  const Array p = momenta(9 * 3 * 2, 1, 1, 1);
  for (Device device : devices()) {
    auto gated = [&](const Array& p) {
      Context ctx(device, 1);
      Array x = p;
      x.shape = {9, 6, 4};
      Tensor y = ctx.empty({9, 4, 2}, DType::f64);
      kernels::gated_unit(ctx, to_tensor(ctx, components_last(x), DType::f64), Unary::gelu, y);
      Array out = components_last(to_array(y));
      out.shape = {18, 4};
      return out;
    };
    const Array y = gated(p);
    for (const Lorentz& a : lorentz_transformations(3))
      CHECK(relative_error(gated(transformed(a, p)), transformed(a, y)) < 1e-9);
  }
}

TEST_CASE("gated_unit: the gradient may take the place of the input") {
  for (Shape shape : {Shape{37, 4, 57}, {37, 38}})
    for (Device device : devices()) {
      Context ctx(device, 1);
      for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
        Shape out = shape;
        out[-1] = 19;
        const Tensor dy = to_tensor(ctx, normal(out, 2), dtype);
        Tensor x = to_tensor(ctx, normal(shape, 1), dtype), dx = ctx.empty(shape, dtype);
        kernels::gated_unit_backward(ctx, dy, x, Unary::silu, dx);
        kernels::gated_unit_backward(ctx, dy, x, Unary::silu, x);
        CHECK(same_bits(x, dx));
      }
    }
}

TEST_CASE("gated_unit refuses bad shapes") {
  Context ctx;
  Tape tape(ctx);
  auto refused = [&](Shape x, Unary f, const char* message) {
    CHECK_THROWS_WITH_AS(gated_unit(tape.constant(ctx.zeros(x, DType::f32)), f), message, Error);
  };
  refused({2, 3, 6}, Unary::gelu, "gated_unit: x has shape [2, 3, 6], expected [T, 4, 3 C] or [T, 2 C]");
  refused({2, 4, 5}, Unary::gelu, "gated_unit: x has shape [2, 4, 5], expected [T, 4, 3 C] or [T, 2 C]");
  refused({2, 5}, Unary::gelu, "gated_unit: x has shape [2, 5], expected [T, 4, 3 C] or [T, 2 C]");
  refused({2}, Unary::gelu, "gated_unit: x has shape [2], expected [T, 4, 3 C] or [T, 2 C]");
  refused({2, 4}, Unary::exp, "gated_unit: f is none of gelu, relu, silu, sigmoid and tanh");
}

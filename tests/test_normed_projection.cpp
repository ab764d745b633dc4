#include "autograd/normed_projection.h"

#include <doctest/doctest.h>

#include "autograd/elementwise.h"
#include "kernels/normed_projection.h"
#include "tests/support/amp.h"
#include "tests/support/naive_lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Size {
  int64_t T, V, S, groups, Cv, Cs;
};
// Around the chunks of tokens (32, 64, 128) and the segments (1024); as in tag_slim.
const std::vector<Size> sizes = {{0, 3, 5, 2, 1, 4},    {1, 1, 1, 1, 1, 1},     {33, 4, 7, 3, 2, 4},
                                 {129, 2, 8, 6, 1, 4},  {5, 0, 3, 2, 1, 2},     {5, 3, 0, 2, 1, 2},
                                 {1100, 2, 3, 2, 1, 2}, {70, 32, 96, 24, 4, 12}};

std::vector<Array> inputs(Size n) {
  auto scale = [](int64_t k) { return 1 / std::sqrt(std::max<double>(1, k)); };
  return {normal({n.T, 4, n.V}, 1), normal({n.T, n.S}, 2), normal({n.groups * n.Cv, n.V}, 3, scale(n.V)),
          normal({n.groups * n.Cs, n.S}, 4, scale(n.S)), normal({n.groups * n.Cs}, 5)};
}

std::vector<Var> projected(const std::vector<Var>& x, int64_t groups, bool normalise,
                           std::optional<DType> result = {}) {
  const LorentzVar y = normed_projection({x[0], x[1]}, {x[2], x[3], x[4]},
                                         {.groups = groups, .normalise = normalise, .eps = 0.01, .result = result});
  return {y.vectors, y.scalars};
}

}  // namespace

// Where a vector crosses the light cone, the norm has a kink: few do within a step of 1e-8. Rounding to bf16 takes some
// across, whose share of a group's gradient, up to 1 / (Cv + Cs), then has the other sign: thus the factor 4.
TEST_CASE("normed_projection") {
  for (Size n : sizes)
    for (bool normalise : {true, false})
      for (bool amp : {false, true})
        for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
          if (amp && dtype != DType::f32) continue;
          const bool exact = !amp && dtype != DType::bf16;
          check_op({.name = fmt::format("normed_projection T {} V {} S {} {} {}", n.T, n.V, n.S, normalise, amp),
                    .inputs = inputs(n),
                    .op =
                        [=](auto& x) {
                          x[0].tape().set_amp(amp);
                          return projected(x, n.groups, normalise);
                        },
                    .oracle =
                        [=](auto& x) {
                          LorentzArray in{x[0], x[1]};
                          if (normalise) in = naive_lorentz_norm(in, 1, 0.01);
                          const Array none = zeros({x[2].shape[0]});
                          const LorentzArray y = naive_lorentz_norm(
                              {naive_linear({in.v, x[2], none}), naive_linear({in.s, x[3], x[4]})}, n.groups, 0.01);
                          return std::vector{y.v, y.s};
                        },
                    .dtypes = {dtype},
                    .tolerance_factor = (exact ? 1 : 4) * (amp ? tolerance(DType::bf16) / tolerance(DType::f32) : 1),
                    .step = 1e-8});
        }
}

TEST_CASE("normed_projection has the same bits for any number of threads, and a token's do not depend on the others") {
  for (DType result : {DType::f32, DType::bf16}) {
    const std::vector<Array> arrays = inputs({2300, 6, 10, 6, 2, 4});
    std::vector<std::vector<Tensor>> all;
    for (int threads : {1, 2, 5}) {
      Context ctx(threads);
      Tape tape(ctx);
      tape.set_amp(result == DType::bf16);
      std::vector<Var> x;
      for (const Array& a : arrays) x.push_back(tape.variable(to_tensor(ctx, a, DType::f32)));
      const auto y = projected(x, 6, true, result);
      CHECK(y[0].dtype() == result);
      CHECK(y[1].dtype() == result);
      all.push_back({y[0].value(), y[1].value()});
      for (int64_t count : {1, 15, 33, 450}) {
        Tape part(ctx, Tape::Mode::evaluate);
        part.set_amp(tape.amp());
        std::vector<Var> few;
        for (const Var& one : x) few.push_back(part.constant(one.value()));
        for (int i : {0, 1}) few[i] = part.constant(few[i].value().narrow(100, count));
        const auto z = projected(few, 6, true, result);
        for (int i : {0, 1}) CHECK(same_bits(z[i].value(), y[i].value().narrow(100, count)));
      }
      tape.backward(y, {y[0].value(), y[1].value()});
      for (const Var& one : x) all.back().push_back(tape.gradient(one));
    }
    for (const auto& some : all)
      for (size_t i = 0; i < some.size(); ++i) CHECK(same_bits(some[i], all[0][i]));
  }
}

TEST_CASE("normed_projection in bf16 is that of f32, rounded, and so is what it reads of gradients") {
  Context ctx(1);
  ctx.allocator().set_guard(true);
  {
    std::vector<Tensor> x;
    for (const Array& a : inputs({140, 3, 4, 2, 5, 6})) x.push_back(to_tensor(ctx, a, DType::f32));
    const kernels::Weights w_v(x[2], DType::bf16), w_s(x[3], DType::bf16);
    const kernels::ProjectionWeights w{&w_v, &w_s, x[4]};
    auto forward = [&](DType dtype) {
      std::vector<Tensor> y = {ctx.empty({140, 4, 10}, dtype), ctx.empty({140, 12}, dtype)};
      kernels::normed_projection(ctx, x[0], x[1], w, true, 2, 0.01, y[0], y[1]);
      return y;
    };
    const auto exact = forward(DType::f32), rounded = forward(DType::bf16);
    for (int i : {0, 1}) CHECK(same_bits(rounded[i], as(ctx, exact[i], DType::bf16)));
    for (bool normalise : {true, false}) {
      auto backward = [&](DType dtype, const Tensor& add_v, const Tensor& add_s) {
        Tensor dv = ctx.empty(x[0].shape(), DType::f32), ds = ctx.empty(x[1].shape(), DType::f32);
        kernels::normed_projection_backward(ctx, as(ctx, rounded[0], dtype), as(ctx, rounded[1], dtype), x[0], x[1], w,
                                            normalise, 2, 0.01, add_v, add_s, {.dv = &dv, .ds = &ds});
        return std::vector{dv, ds};
      };
      const auto one = backward(DType::f32, {}, {}), other = backward(DType::bf16, {}, {}),
                 more = backward(DType::f32, x[0], x[1]);
      for (int i : {0, 1}) {
        CHECK(same_bits(one[i], other[i]));
        Array sum = to_array(one[i]);
        const Array add = to_array(x[i]);
        for (int64_t j = 0; j < sum.shape.numel(); ++j) sum[j] += add[j];
        CHECK(relative_error(to_array(more[i]), sum) < 1e-6);
      }
      // In the place of what is added.
      Tensor dv = as(ctx, x[0], DType::f32), ds = as(ctx, x[1], DType::f32);
      kernels::normed_projection_backward(ctx, rounded[0], rounded[1], x[0], x[1], w, normalise, 2, 0.01, dv, ds,
                                          {.dv = &dv, .ds = &ds});
      CHECK(same_bits(dv, more[0]));
      CHECK(same_bits(ds, more[1]));
    }
  }
  CHECK(ctx.allocator().guard_violations() == 0);
}

TEST_CASE("normed_projection refuses bad shapes") {
  Context ctx;
  Tape tape(ctx);
  auto refused = [&](std::vector<Shape> shapes, int64_t groups, std::optional<DType> result, const char* message) {
    std::vector<Var> x;
    for (Shape s : shapes) x.push_back(tape.constant(ctx.zeros(s, DType::f32)));
    CHECK_THROWS_WITH_AS(projected(x, groups, true, result), message, Error);
  };
  refused({{2, 3, 4}, {2, 5}, {6, 4}, {6, 5}, {6}}, 2, {},
          "normed_projection: v has shape [2, 3, 4], expected 4 components along its second axis");
  refused({{2, 4, 4}, {3, 5}, {6, 4}, {6, 5}, {6}}, 2, {}, "normed_projection: s has 3 tokens, v has 2");
  refused({{2, 4, 4}, {2, 5}, {6, 3}, {6, 5}, {6}}, 2, {}, "normed_projection: w_v has shape [6, 3], expected [6, 4]");
  refused({{2, 4, 4}, {2, 5}, {6, 4}, {6, 5}, {6}}, 4, {},
          "normed_projection: w_v has 6 rows and w_s 6, expected multiples of 4 groups");
  refused({{2, 4, 4}, {2, 5}, {6, 4}, {6, 5}, {5}}, 2, {}, "normed_projection: bias has shape [5], expected [6]");
  refused({{2, 4, 4}, {2, 5}, {6, 4}, {6, 5}, {6}}, 2, DType::bf16, "normed_projection: yv is bf16, expected f32");
}

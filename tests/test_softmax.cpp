#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/softmax.h"
#include "kernels/softmax.h"
#include "tests/support/bits.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
constexpr double inf = std::numeric_limits<double>::infinity();

template <bool log>
std::vector<Array> oracle(const std::vector<Array>& x) {
  Array y = zeros(x[0].shape);
  for (int64_t t = 0; t < y.shape[0]; ++t) {
    double sum = 0, top = x[0].at(t, 0);
    for (int64_t c = 0; c < y.shape[1]; ++c) top = std::max(top, x[0].at(t, c));
    for (int64_t c = 0; c < y.shape[1]; ++c) sum += std::exp(x[0].at(t, c) - top);
    for (int64_t c = 0; c < y.shape[1]; ++c)
      y.at(t, c) = log ? x[0].at(t, c) - top - std::log(sum) : std::exp(x[0].at(t, c) - top) / sum;
  }
  return {y};
}
}  // namespace

TEST_CASE("softmax and log_softmax") {
  for (Shape shape : {Shape{0, 8}, {1, 1}, {1, 31}, {3, 33}, {33, 64}, {257, 129}, {1000, 2}, {3, 1025}, {2, 2048}}) {
    check_op({.name = fmt::format("softmax {}", shape),
              .inputs = {normal(shape, 1, 2)},
              .op = [](auto& x) { return std::vector{softmax(x[0])}; },
              .oracle = oracle<false>});
    check_op({.name = fmt::format("log_softmax {}", shape),
              .inputs = {normal(shape, 2, 2)},
              .op = [](auto& x) { return std::vector{log_softmax(x[0])}; },
              .oracle = oracle<true>});
  }
}

TEST_CASE("softmax with large entries, infinities and NaN") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 1);
    Tape tape(ctx, Tape::Mode::evaluate);
    for (DType dtype : {DType::f64, DType::f32}) {
      auto var = [&](std::vector<double> row) {
        return tape.constant(to_tensor(ctx, {{1, static_cast<int64_t>(row.size())}, row}, dtype));
      };
      CHECK(to_array(softmax(var({1000, 1000, -1000, -inf})).value()).values == std::vector<double>{0.5, 0.5, 0, 0});
      CHECK(to_array(log_softmax(var({1000, -1000, -inf})).value()).values == std::vector<double>{0, -2000, -inf});
      for (const auto& row : {std::vector<double>{1, nan, 2}, {1, inf, 2}, {-inf, -inf, -inf}})
        for (const Var& y : {softmax(var(row)), log_softmax(var(row))})
          for (double v : to_array(y.value()).values) CHECK(std::isnan(v));
    }
  }
}

TEST_CASE("softmax in place, and of a row alone") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 1);
    for (auto [forward, backward] : {std::pair{&kernels::softmax, &kernels::softmax_backward},
                                     std::pair{&kernels::log_softmax, &kernels::log_softmax_backward}})
      for (int64_t C : {7, 128, 1030}) {
        const Tensor x = to_tensor(ctx, normal({9, C}, 1), DType::f32),
                     dy = to_tensor(ctx, normal({9, C}, 2), DType::f32);
        Tensor y = ctx.empty({9, C}, DType::f32), dx = ctx.empty({9, C}, DType::f32),
               row = ctx.empty({1, C}, DType::f32);
        forward(ctx, x, y);
        backward(ctx, dy, y, dx);
        forward(ctx, x.narrow(5, 1), row);
        CHECK(same_bits(row, ctx.copy(y.narrow(5, 1))));
        Tensor in_place = ctx.copy(x);
        forward(ctx, in_place, in_place);
        CHECK(same_bits(in_place, y));
        in_place = ctx.copy(dy);
        backward(ctx, in_place, y, in_place);
        CHECK(same_bits(in_place, dx));
      }
  }
}

TEST_CASE("softmax refuses bad shapes") {
  Context ctx(1);
  Tape tape(ctx);
  CHECK_THROWS_WITH_AS(softmax(tape.constant(ctx.zeros({4, 0}, DType::f32))), "softmax: x has 0 columns", Error);
  CHECK_THROWS_WITH_AS(log_softmax(tape.constant(ctx.zeros({4, 0}, DType::f32))), "log_softmax: x has 0 columns",
                       Error);
  CHECK_THROWS_WITH_AS(softmax(tape.constant(ctx.zeros({4}, DType::f32))), "softmax: x has shape [4], expected 2 axes",
                       Error);
  CHECK_THROWS_WITH_AS(softmax(tape.constant(ctx.zeros({4, 2}, DType::i32))),
                       "softmax: x is i32, expected f64, f32 or bf16", Error);
}

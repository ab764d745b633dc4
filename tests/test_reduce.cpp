#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "autograd/reduce.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

// Around the blocks of rows (256), the stripes of columns (1024) and the chunks (16384).
const std::vector<Shape> shapes = {{0, 3},   {3, 0},    {1, 1},     {31, 33},  {33, 31},   {255, 2},
                                   {257, 3}, {3, 1023}, {2, 16385}, {5, 4, 3}, {513, 1025}};

int64_t rows_of(const Array& x) { return x.shape[-1] ? x.shape.numel() / x.shape[-1] : x.shape.numel(); }

Array naive_sum(const Array& x, Over over) {
  Array y = zeros(kernels::shape_of_sum(x.shape, over));
  const int64_t n = y.shape.numel();
  for (int64_t i = 0; i < x.shape.numel(); ++i)
    y[over == Over::last ? i / x.shape[-1] : over == Over::leading ? i % n : 0] += x[i];
  return y;
}

}  // namespace

TEST_CASE("sum and mean") {
  // Sums are linear, so a long step is exact, while with a short one the rounding of a total of 5e5 shows.
  constexpr double step = 0.1;
  for (Shape shape : shapes)
    for (Over over : {Over::last, Over::leading, Over::all}) {
      // Numbers around 1, so that no sum cancels and the tolerance is that of its terms.
      const Array x = uniform(shape, 1, 0.5, 1.5);
      check_op({.name = fmt::format("sum {} {}", shape, static_cast<int>(over)),
                .inputs = {x},
                .op = [=](auto& v) { return std::vector{sum(v[0], over)}; },
                .oracle = [=](auto& v) { return std::vector{naive_sum(v[0], over)}; },
                .step = step});
      const int64_t count = kernels::count_of_sum(shape, over);
      if (count == 0) continue;
      check_op({.name = fmt::format("mean {} {}", shape, static_cast<int>(over)),
                .inputs = {x},
                .op = [=](auto& v) { return std::vector{mean(v[0], over)}; },
                .oracle =
                    [=](auto& v) {
                      Array y = naive_sum(v[0], over);
                      for (double& e : y.values) e /= static_cast<double>(count);
                      return std::vector{y};
                    },
                .step = step});
    }
}

TEST_CASE("long sums stay accurate and keep their bits for any number of threads") {
  const int64_t n = 1'000'003;
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    std::vector<double> sums;
    for (int threads : {1, 2, 3}) {
      Context ctx(device, threads);
      const Tensor x = to_tensor(ctx, uniform({n, 1}, 1, 0, 2), DType::f32);
      for (Over over : {Over::leading, Over::all}) {
        Tensor y = ctx.empty({1}, DType::f32);
        kernels::sum(ctx, x, over, 1, y);
        sums.push_back(y.item());
      }
      sums.push_back(kernels::sum_of_squares(ctx, x));
    }
    double exact = 0, squares = 0;
    for (double v : uniform({n, 1}, 1, 0, 2).values) {
      exact += static_cast<float>(v);
      squares += static_cast<double>(static_cast<float>(v)) * static_cast<float>(v);
    }
    CHECK(sums[0] == doctest::Approx(exact).epsilon(1e-7));
    CHECK(sums[1] == doctest::Approx(exact).epsilon(1e-7));
    CHECK(sums[2] == doctest::Approx(squares).epsilon(1e-12));
    for (size_t i = 3; i < sums.size(); ++i) CHECK(sums[i] == sums[i % 3]);
  }
}

TEST_CASE("max_last") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    for (DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (Shape shape : {Shape{0, 3}, {1, 1}, {31, 33}, {4, 5, 65}, {3, 1024}, {3, 2050}}) {
        Context ctx(device, 2);
        ctx.allocator().set_guard(true);
        {
          const Tensor x = to_tensor(ctx, normal(shape, 1), dtype);
          const Array values = to_array(x);
          Array expected = zeros(kernels::shape_of_sum(shape, Over::last));
          for (int64_t t = 0; t < rows_of(values); ++t) {
            expected[t] = values.at(t, 0);
            for (int64_t c = 1; c < shape[-1]; ++c) expected[t] = std::max(expected[t], values.at(t, c));
          }
          Tensor y = ctx.empty(expected.shape, dtype);
          kernels::max_last(ctx, x, y);
          CHECK(to_array(y).values == expected.values);
        }
        CHECK(ctx.allocator().guard_violations() == 0);
      }
    Context ctx(device);
    const double nan_value = std::numeric_limits<double>::quiet_NaN();
    Tensor y = ctx.empty({2}, DType::f32);
    kernels::max_last(ctx, ctx.of({2, 3}, DType::f32, std::vector<double>{1, nan_value, 3, -5, -4, -6}), y);
    CHECK(std::isnan(to_array(y)[0]));
    CHECK(to_array(y)[1] == -4);
  }
}

TEST_CASE("all_finite finds one bad element anywhere") {
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (int64_t n : {0, 1, 33, 20000}) {
        Context ctx(device, 2);
        Array x = normal({n}, 1);
        CHECK(kernels::all_finite(ctx, to_tensor(ctx, x, dtype)));
        for (int64_t place : {int64_t{0}, n / 2, n - 1})
          for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
            if (n == 0) continue;
            Array y = x;
            y[place] = bad;
            CHECK(!kernels::all_finite(ctx, to_tensor(ctx, y, dtype)));
          }
      }
}

TEST_CASE("reductions refuse bad shapes") {
  Context ctx;
  Tape tape(ctx);
  auto of = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
  CHECK_THROWS_WITH_AS(sum(of({3}), Over::last), "sum: x has shape [3], expected at least 2 axes", Error);
  CHECK_THROWS_WITH_AS(sum(of({3, 2}, DType::i32), Over::last), "sum: x is i32, expected f64, f32 or bf16", Error);
  CHECK_THROWS_WITH_AS(mean(of({0, 2}), Over::leading), "mean: x has shape [0, 2]; there is no mean of 0 elements",
                       Error);
  Tensor y = ctx.zeros({3}, DType::f32);
  CHECK_THROWS_WITH_AS(kernels::sum(ctx, ctx.zeros({3, 2}, DType::f32), Over::leading, 1, y),
                       "sum: y has shape [3], expected [2]", Error);
  CHECK_THROWS_WITH_AS(kernels::max_last(ctx, ctx.zeros({3, 0}, DType::f32), y),
                       "max_last: x has shape [3, 0]; there is no largest of 0 elements", Error);
}

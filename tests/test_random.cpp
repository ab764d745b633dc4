#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "autograd/random.h"
#include "kernels/random.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {
// Pearson's chi^2 of counts in equally likely bins, as standard deviations from its mean (Wilson and Hilferty's cube
// root, good to a percent for many bins). Seeds are fixed, so the bound of 4 holds or does not, always.
double chi2_deviation(const std::vector<int64_t>& counts) {
  double n = 0, chi2 = 0;
  for (int64_t c : counts) n += static_cast<double>(c);
  const double bins = static_cast<double>(counts.size()), mean = n / bins, k = bins - 1;
  for (int64_t c : counts) chi2 += (c - mean) * (c - mean) / mean;
  return (std::cbrt(chi2 / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
}

std::vector<int64_t> histogram(const Array& a, int bins, const std::function<double(double)>& cumulative) {
  std::vector<int64_t> counts(bins);
  for (double v : a.values) ++counts.at(std::min(bins - 1, static_cast<int>(cumulative(v) * bins)));
  return counts;
}

double normal_cumulative(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

template <class F>
Array filled(Shape shape, DType dtype, int threads, F fill, Device device = Device::cpu) {
  Context ctx(device, threads, 9);
  ctx.allocator().set_guard(true);
  Tensor y = ctx.empty(shape, dtype);
  fill(ctx, ctx.rng().draw("test", shape.numel()), y);
  const Array out = to_array(y);
  y = {};
  CHECK(ctx.allocator().guard_violations() == 0);
  return out;
}
}  // namespace

TEST_CASE("fill_uniform and fill_normal: the numbers of the Draw, at any size and for any number of threads") {
  auto uniform = [](Context& ctx, const Draw& d, Tensor& y) { kernels::fill_uniform(ctx, d, -2, 5, y); };
  auto normal = [](Context& ctx, const Draw& d, Tensor& y) { kernels::fill_normal(ctx, d, 3, 0.5, y); };
  for (int64_t n : {0, 1, 31, 33, 4097, 30001})
    for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      const Draw draw = Rng(9).draw("test", n);
      Array u = zeros({n}), g = zeros({n});
      for (int64_t i = 0; i < n; ++i) u[i] = -2 + 7 * draw.uniform53(i), g[i] = 3 + 0.5 * draw.normal(i);
      CHECK(filled({n}, dtype, 1, uniform).values == filled({n}, dtype, 2, uniform).values);
      CHECK(filled({n}, dtype, 1, normal).values == filled({n}, dtype, 3, normal).values);
      for (Device device : devices()) {
        INFO("on ", name_of(device));
        CHECK(relative_error(filled({n}, dtype, 1, uniform, device), u) <= tolerance(dtype));
        CHECK(relative_error(filled({n}, dtype, 1, normal, device), g) <= tolerance(dtype));
      }
    }
}

TEST_CASE("fill_uniform and fill_normal: distributions") {
  const Shape shape{1000, 100};
  for (DType dtype : {DType::f64, DType::f32}) {
    const Array u =
        filled(shape, dtype, 1, [](Context& ctx, const Draw& d, Tensor& y) { kernels::fill_uniform(ctx, d, 0, 1, y); });
    CHECK(std::abs(chi2_deviation(histogram(u, 200, [](double x) { return x; }))) < 4);
    const Array g =
        filled(shape, dtype, 1, [](Context& ctx, const Draw& d, Tensor& y) { kernels::fill_normal(ctx, d, 0, 1, y); });
    CHECK(std::abs(chi2_deviation(histogram(g, 200, normal_cumulative))) < 4);
    // Neighbours are independent: their pairs fill 16 x 16 boxes evenly.
    for (const Array* a : {&u, &g}) {
      std::vector<int64_t> pairs(256);
      auto box = [&](double x) { return std::min(15, static_cast<int>((a == &u ? x : normal_cumulative(x)) * 16)); };
      for (size_t i = 0; i + 1 < a->values.size(); i += 2) ++pairs[16 * box(a->values[i]) + box(a->values[i + 1])];
      CHECK(std::abs(chi2_deviation(pairs)) < 4);
    }
  }
}

TEST_CASE("dropout") {
  for (double p : {0.1, 0.5, 0.97})
    for (Shape shape : {Shape{0, 3}, {1}, {31}, {33, 1}, {3, 85, 1}, {257, 129}})
      check_op({.name = fmt::format("dropout {} of {}", p, shape),
                .inputs = {normal(shape, 1)},
                .op = [&](auto& x) { return std::vector{dropout(x[0], p)}; },
                .oracle =
                    [&](const auto& x) {
                      const Draw draw = Rng(1).draw("dropout", x[0].shape.numel());
                      Array y = zeros(x[0].shape);
                      for (int64_t i = 0; i < x[0].shape.numel(); ++i)
                        y[i] = draw.uniform(i) >= p ? x[0][i] / (1 - p) : 0;
                      return std::vector{y};
                    }});
}

TEST_CASE("dropout: how many stay, everywhere alike, and new ones every time") {
  Context ctx(2, 5);
  Tape tape(ctx);
  constexpr int64_t n = 400'000;
  const Var ones = tape.constant(ctx.of({n}, DType::f32, std::vector<double>(n, 1.0)));
  for (double p : {0.1, 0.25, 0.9}) {
    const Array a = to_array(dropout(ones, p).value()), b = to_array(dropout(ones, p).value());
    std::vector<int64_t> kept(100), both(100);
    int64_t wrong_scale = 0;
    for (int64_t i = 0; i < n; ++i) {
      const bool in_a = a[i] != 0, in_b = b[i] != 0;
      wrong_scale += in_a && a[i] != static_cast<float>(1 / (1 - p));
      kept[i % 100] += in_a;
      both[i % 100] += in_a && in_b;
    }
    CHECK(wrong_scale == 0);
    auto total = [](const std::vector<int64_t>& v) {
      double sum = 0;
      for (int64_t c : v) sum += static_cast<double>(c);
      return sum;
    };
    // Binomial counts: four standard deviations.
    CHECK(std::abs(total(kept) / n - (1 - p)) < 4 * std::sqrt(p * (1 - p) / n));
    const double q = (1 - p) * (1 - p);
    CHECK(std::abs(total(both) / n - q) < 4 * std::sqrt(q * (1 - q) / n));
    // A count varies with variance n p (1 - p), not n (1 - p): chi^2 of the counts is smaller by p.
    double chi2 = 0;
    const double mean = total(kept) / 100;
    for (int64_t c : kept) chi2 += (c - mean) * (c - mean) / (mean * p);
    CHECK(std::abs(chi2 - 99) < 4 * std::sqrt(2.0 * 99));
  }
}

TEST_CASE("dropout: evaluation and p = 0 are the identity and draw nothing") {
  for (Device device : devices()) {
    Context ctx(device);
    Tape evaluation(ctx, Tape::Mode::evaluate), training(ctx);
    const Tensor x = to_tensor(ctx, normal({33}, 1), DType::f32);
    CHECK(dropout(evaluation.constant(x), 0.5).value().raw() == x.raw());
    CHECK(dropout(training.constant(x), 0).value().raw() == x.raw());
    CHECK(ctx.rng().positions().empty());
    Tensor y = ctx.empty({33}, DType::f32);
    kernels::dropout(ctx, ctx.rng().draw("dropout", 33), 0, x, y);
    CHECK(to_array(y).values == to_array(x).values);
  }
}

TEST_CASE("dropout: recorded numbers, kept where u >= p") {
  for (Device device : devices()) {
    Context ctx(device);
    Tape tape(ctx);
    ctx.rng().replace("dropout", {0.25, 0.2499, 0.9, 0, 0.5});
    const Var x = tape.variable(to_tensor(ctx, {{5}, {3, 3, 3, 3, NAN}}, DType::f64));
    const Var y = dropout(x, 0.25);
    const Array value = to_array(y.value());
    CHECK(std::vector(value.values.begin(), value.values.begin() + 4) == std::vector<double>{4, 0, 4, 0});
    CHECK(std::isnan(value[4]));
    tape.backward(y, to_tensor(ctx, {{5}, {6, 6, 6, 6, 6}}, DType::f64));
    CHECK(to_array(tape.gradient(x)).values == std::vector<double>{8, 0, 8, 0, 8});
    CHECK_THROWS_WITH_AS(
        dropout(x, 0.25),
        "rng: stream 'dropout' was replaced by 5 recorded numbers, 5 are used and 5 more are asked for", Error);
  }
}

TEST_CASE("dropout drops the same elements on every device, in place and at any alignment") {
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32, DType::bf16})
      for (int64_t n : {1, 5, 16, 37, 1027})
        for (int64_t begin : {0, 1}) {
          INFO(n, " from ", begin, " on, on ", name_of(device));
          Context ctx(device, 1);
          const Array ones = {{n + begin}, std::vector<double>(n + begin, 1)};
          const Draw draw = Rng(3).draw("dropout", n);
          const Tensor x = to_tensor(ctx, ones, dtype).narrow(begin, n);
          Tensor y = ctx.empty({n}, dtype), in_place = to_tensor(ctx, ones, dtype).narrow(begin, n);
          kernels::dropout(ctx, draw, 0.5, x, y);
          kernels::dropout(ctx, draw, 0.5, in_place, in_place);
          CHECK(to_array(in_place).values == to_array(y).values);
          const Array result = to_array(y);
          for (int64_t i = 0; i < n; ++i) CHECK(result[i] == (draw.uniform(i) >= 0.5 ? 2 : 0));
        }
}

TEST_CASE("random kernels refuse bad input") {
  Context ctx;
  Tape tape(ctx, Tape::Mode::evaluate);
  const Var x = tape.constant(ctx.zeros({3}, DType::f32));
  CHECK_THROWS_WITH_AS(dropout(x, 1), "dropout: p is 1, expected 0 <= p < 1", Error);
  CHECK_THROWS_WITH_AS(dropout(x, -0.1), "dropout: p is -0.1, expected 0 <= p < 1", Error);
  CHECK_THROWS_AS(dropout(x, NAN), Error);
  Tensor ints = ctx.zeros({3}, DType::i32), wide = ctx.zeros({4}, DType::f32);
  CHECK_THROWS_WITH_AS(kernels::fill_normal(ctx, Draw{}, 0, 1, ints),
                       "fill_normal: y is i32, expected f64, f32 or bf16", Error);
  CHECK_THROWS_WITH_AS(kernels::dropout(ctx, Draw{}, 0.5, x.value(), wide), "dropout: y has shape [4], expected [3]",
                       Error);
  const Draw few{0, 0, std::make_shared<std::vector<double>>(2, 0.5)};
  CHECK_THROWS_WITH_AS(kernels::fill_uniform(ctx, few, 0, 1, wide), "fill_uniform: 2 recorded numbers for 4 elements",
                       Error);
}

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "autograd/elementwise.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double nan_value = std::numeric_limits<double>::quiet_NaN();

// Around the blocks of the vector functions (64) and the chunks of the threads (16384).
const std::vector<Shape> shapes = {{0}, {1}, {31}, {33}, {63}, {65}, {3, 5, 7}, {16383}, {16385}};

// An oracle that goes element by element.
std::function<std::vector<Array>(const std::vector<Array>&)> each(std::function<double(double, double)> f) {
  return [f](const std::vector<Array>& x) {
    Array y = zeros(x[0].shape);
    for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] = f(x[0][i], x.size() > 1 ? x[1][i] : 0);
    return std::vector{y};
  };
}

struct Function {
  const char* name;
  Unary f;
  std::function<double(double)> oracle;
  bool positive = false;  // defined for positive numbers only
};
const std::vector<Function> functions = {
    {"gelu", Unary::gelu, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2)); }},
    {"relu", Unary::relu, [](double x) { return x > 0 ? x : 0; }},
    {"silu", Unary::silu, [](double x) { return x / (1 + std::exp(-x)); }},
    {"sigmoid", Unary::sigmoid, [](double x) { return 0.5 * (1 + std::tanh(x / 2)); }},
    {"tanh", Unary::tanh, [](double x) { return std::tanh(x); }},
    {"softplus", Unary::softplus, [](double x) { return std::log1p(std::exp(x)); }},
    {"leaky_relu", Unary::leaky_relu, [](double x) { return x > 0 ? x : 0.01 * x; }},
    {"exp", Unary::exp, [](double x) { return std::exp(x); }},
    {"log", Unary::log, [](double x) { return std::log(x); }, true},
    {"sqrt", Unary::sqrt, [](double x) { return std::sqrt(x); }, true},
    {"abs", Unary::abs, [](double x) { return std::abs(x); }},
    {"square", Unary::square, [](double x) { return x * x; }},
};

std::vector<double> values_of(Device device, Unary f, const std::vector<double>& x, DType dtype = DType::f64) {
  Context ctx(device);
  Tape tape(ctx);
  return to_array(unary(f, tape.constant(ctx.of({static_cast<int64_t>(x.size())}, dtype, x))).value()).values;
}

}  // namespace

TEST_CASE("unary functions") {
  for (const Function& function : functions)
    for (Shape shape : shapes)
      check_op({.name = fmt::format("{} {}", function.name, shape),
                .inputs = {function.positive ? uniform(shape, 1, 0.1, 3) : normal(shape, 1)},
                .op = [&](auto& x) { return std::vector{unary(function.f, x[0])}; },
                .oracle = each([&](double x, double) { return function.oracle(x); })});
}

TEST_CASE("unary functions far out") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    auto of = [&](Unary f, const std::vector<double>& x) { return values_of(device, f, x); };
    CHECK(of(Unary::softplus, {800, -800, -40})[0] == 800);
    CHECK(of(Unary::softplus, {800, -800, -40})[1] == 0);
    CHECK(of(Unary::softplus, {800, -800, -40})[2] == doctest::Approx(std::exp(-40)).epsilon(1e-12));
    CHECK(of(Unary::sigmoid, {1000, -1000}) == std::vector<double>{1, 0});
    CHECK(of(Unary::silu, {1000, -700})[0] == 1000);
    CHECK(of(Unary::gelu, {50, -50}) == std::vector<double>{50, 0});
    CHECK(of(Unary::relu, {infinity, -infinity}) == std::vector<double>{infinity, 0});
    for (const Function& function : functions)
      CHECK_MESSAGE(std::isnan(of(function.f, {1, nan_value})[1]), function.name);
  }
}

TEST_CASE("an element's bits do not depend on its place") {
  for (Device device : devices())
    for (const Function& function : functions)
      for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
        INFO(function.name, " on ", name_of(device));
        const std::vector<double> x = uniform({200}, 1, 0.1, 3).values;
        const std::vector<double> all = values_of(device, function.f, x, dtype);
        for (int64_t begin : {1, 7, 63, 70, 199})
          CHECK(values_of(device, function.f, {x.begin() + begin, x.end()}, dtype) ==
                std::vector<double>{all.begin() + begin, all.end()});
      }
}

TEST_CASE("sums, differences, products") {
  for (Shape shape : shapes) {
    const std::vector<Array> inputs = {normal(shape, 1), normal(shape, 2)};
    const std::string size = fmt::format(" {}", shape);
    check_op({.name = "add" + size,
              .inputs = inputs,
              .op = [](auto& x) { return std::vector{add(x[0], x[1])}; },
              .oracle = each([](double a, double b) { return a + b; })});
    check_op({.name = "subtract" + size,
              .inputs = inputs,
              .op = [](auto& x) { return std::vector{subtract(x[0], x[1])}; },
              .oracle = each([](double a, double b) { return a - b; })});
    check_op({.name = "multiply" + size,
              .inputs = inputs,
              .op = [](auto& x) { return std::vector{multiply(x[0], x[1])}; },
              .oracle = each([](double a, double b) { return a * b; })});
    check_op({.name = "scale" + size,
              .inputs = {inputs[0]},
              .op = [](auto& x) { return std::vector{scale(x[0], -2.5)}; },
              .oracle = each([](double a, double) { return -2.5 * a; })});
    check_op({.name = "clamp" + size,
              .inputs = {inputs[0]},
              .op = [](auto& x) { return std::vector{clamp(x[0], -0.5, 1)}; },
              .oracle = each([](double a, double) { return std::min(std::max(a, -0.5), 1.0); })});
  }
  // One operand twice: both gradients arrive in one slot.
  check_op({.name = "x + x x",
            .inputs = {normal({33}, 1)},
            .op = [](auto& x) { return std::vector{add(x[0], multiply(x[0], x[0]))}; },
            .oracle = each([](double a, double) { return a + a * a; })});
}

TEST_CASE("add_row") {
  for (Shape shape : {Shape{0, 3}, {5, 0}, {1, 1}, {31, 33}, {300, 65}, {4, 5, 6}})
    check_op({.name = fmt::format("add_row {}", shape),
              .inputs = {normal(shape, 1), normal({shape[-1]}, 2)},
              .op = [](auto& x) { return std::vector{add_row(x[0], x[1])}; },
              .oracle =
                  [](auto& x) {
                    Array y = x[0];
                    for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] += x[1][i % y.shape[-1]];
                    return std::vector{y};
                  }});
}

TEST_CASE("concat and slice") {
  for (Shape leading : {Shape{0}, {1}, {33}, {257}, {5, 4}}) {
    auto with = [&](int64_t columns) {
      Shape shape = leading;
      shape.append(columns);
      return shape;
    };
    check_op({.name = fmt::format("concat {}", leading),
              .inputs = {normal(with(3), 1), normal(with(0), 2), normal(with(31), 3)},
              .op = [](auto& x) { return std::vector{concat(x)}; },
              .oracle =
                  [&](auto& x) {
                    Array y = zeros(with(34));
                    for (int64_t t = 0; t < leading.numel(); ++t)
                      for (int64_t c = 0; c < 34; ++c) y.at(t, c) = c < 3 ? x[0].at(t, c) : x[2].at(t, c - 3);
                    return std::vector{y};
                  }});
    for (auto [begin, count] : {std::pair{0, 7}, {2, 5}, {3, 1}, {4, 0}})
      check_op({.name = fmt::format("slice {} {} {}", leading, begin, count),
                .inputs = {normal(with(7), 1)},
                .op = [=](auto& x) { return std::vector{slice(x[0], begin, count)}; },
                .oracle =
                    [&](auto& x) {
                      Array y = zeros(with(count));
                      for (int64_t t = 0; t < leading.numel(); ++t)
                        for (int64_t c = 0; c < count; ++c) y.at(t, c) = x[0].at(t, begin + c);
                      return std::vector{y};
                    }});
  }
}

namespace {
void check_cast(Device device) {
  Context ctx(device, 2);
  Tape tape(ctx);
  auto values = [&](const std::vector<double>& x, DType from, DType to) {
    return to_array(cast(tape.constant(ctx.of({static_cast<int64_t>(x.size())}, from, x)), to).value()).values;
  };
  using Values = std::vector<double>;
  CHECK(values({1.7, -1.7, 0, 127.9, -128.9}, DType::f64, DType::i8) == Values{1, -1, 0, 127, -128});
  CHECK(values({2147483647.5, -2147483648.5}, DType::f64, DType::i32) == Values{2147483647, -2147483648.});
  CHECK(values({0x1p62, -0x1p63}, DType::f32, DType::i64) == Values{0x1p62, -0x1p63});
  CHECK(values({-3, 100}, DType::i64, DType::i8) == Values{-3, 100});
  CHECK(values({0, 1}, DType::boolean, DType::i32) == Values{0, 1});
  CHECK(values({0, 0.5, -3, nan_value, infinity}, DType::f32, DType::boolean) == Values{0, 1, 1, 1, 1});
  CHECK(values({1 + 0x1p-8, 1 + 3 * 0x1p-8}, DType::f64, DType::bf16) == Values{1, 1 + 0x1p-6});  // ties to even
  CHECK(values({300, -7}, DType::i32, DType::f16) == Values{300, -7});

  auto refuses = [&](double value, DType from, DType to, const std::string& message) {
    CHECK_THROWS_WITH_AS(values({0, value}, from, to), message.c_str(), Error);
  };
  refuses(nan_value, DType::f32, DType::i32, "cast: element 1 is nan, which i32 cannot hold");
  refuses(infinity, DType::bf16, DType::i64, "cast: element 1 is inf, which i64 cannot hold");
  refuses(2147483648., DType::f64, DType::i32, "cast: element 1 is 2147483648, which i32 cannot hold");
  refuses(-2147483649., DType::f64, DType::i32, "cast: element 1 is -2147483649, which i32 cannot hold");
  refuses(2147483648., DType::f32, DType::i32, "cast: element 1 is 2147483648, which i32 cannot hold");
  refuses(0x1p63, DType::f64, DType::i64, "cast: element 1 is 9.223372036854776e+18, which i64 cannot hold");
  refuses(128, DType::i32, DType::i8, "cast: element 1 is 128, which i8 cannot hold");

  // Gradients return in the dtype of x.
  const Var x = tape.variable(ctx.of({2}, DType::f64, Values{1, 2}));
  const Var y = cast(x, DType::f32);
  CHECK(y.dtype() == DType::f32);
  tape.backward(y, ctx.of({2}, DType::f32, Values{0.5, -3}));
  CHECK(tape.gradient(x).dtype() == DType::f64);
  CHECK(to_array(tape.gradient(x)).values == Values{0.5, -3});
  CHECK(!cast(x, DType::i32).wants_grad());
}
}  // namespace

TEST_CASE("cast") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    check_cast(device);
  }
}

TEST_CASE("cast between all dtypes, in packs and behind them") {
  const DType dtypes[] = {DType::f64,      DType::f32, DType::bf16, DType::f16, DType::fp8_e4m3,
                          DType::fp8_e5m2, DType::i8,  DType::i32,  DType::i64, DType::boolean};
  for (Device device : devices())
    for (DType from : dtypes)
      for (DType to : dtypes)
        for (int64_t n : {0, 1, 37, 300}) {
          INFO(name_of(from), " to ", name_of(to), " on ", name_of(device));
          Context ctx(device, 1);
          ctx.allocator().set_guard(true);
          std::vector<double> x(n);  // numbers that every dtype holds
          for (int64_t i = 0; i < n; ++i)
            x[i] = from == DType::boolean || to == DType::boolean ? i % 3 == 0 : i % 15 - 7;
          const Tensor in = ctx.of({n}, from, x);
          Tensor all = ctx.empty({n}, to);
          kernels::cast(ctx, in, all);
          CHECK(to_array(all).values == x);
          // From the middle of a tensor on, at another alignment.
          if (n == 0) continue;
          Tensor rest = ctx.empty({n - 1}, to);
          kernels::cast(ctx, in.narrow(1, n - 1), rest);
          CHECK(to_array(rest).values == std::vector<double>{x.begin() + 1, x.end()});
        }
}

TEST_CASE("elementwise functions refuse bad operands") {
  Context ctx;
  Tape tape(ctx);
  auto of = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
  CHECK_THROWS_WITH_AS(add(of({3}), of({4})), "add: b has shape [4], expected [3]", Error);
  CHECK_THROWS_WITH_AS(multiply(of({3}), of({3}, DType::f64)), "multiply: b is f64, expected f32", Error);
  CHECK_THROWS_WITH_AS(unary(Unary::gelu, of({3}, DType::i32)), "gelu: x is i32, expected f64, f32 or bf16", Error);
  CHECK_THROWS_WITH_AS(add_row(of({2, 3}), of({2})), "add_row: row has shape [2], expected [3]", Error);
  CHECK_THROWS_WITH_AS(clamp(of({3}), 2, 1), "clamp: low is 2, high 1; expected low <= high", Error);
  CHECK_THROWS_WITH_AS(clamp(of({3}), nan_value, 1), "clamp: low is nan, high 1; expected low <= high", Error);
  CHECK_THROWS_WITH_AS(concat({}), "concat: no parts", Error);
  CHECK_THROWS_WITH_AS(concat({of({2, 3}), of({3, 3})}),
                       "concat: a part has shape [3, 3], expected that of [2, 6] but for the last axis", Error);
  CHECK_THROWS_WITH_AS(concat({of({2, 3}), of({2, 3}, DType::f64)}), "concat: a part is f64, expected f32", Error);
  CHECK_THROWS_WITH_AS(slice(of({2, 3}), 2, 2), "slice: columns 2 to 4 of a tensor of shape [2, 3]", Error);
  CHECK_THROWS_WITH_AS(slice(of({2, 3}), -1, 2), "slice: columns -1 to 1 of a tensor of shape [2, 3]", Error);
  CHECK_THROWS_WITH_AS(slice(of({}), 0, 0), "slice: x has shape [], expected at least 1 axis", Error);
}

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/matmul.h"
#include "kernels/matmul.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/naive_linear.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Size {
  int64_t T, N, K;
};
// Around the tiles (8 x 24), the panels (16, 48, 64), the chunks of rows (144) and the blocks of tokens (256); T = 4200
// makes segments of two blocks. From 64 x 64 on f32 goes through AMX tiles.
const std::vector<Size> sizes = {{0, 3, 5},      {1, 1, 1},    {3, 5, 0},    {5, 0, 3},     {1, 31, 33},
                                 {31, 33, 7},    {33, 25, 9},  {65, 128, 7}, {145, 1, 65},  {257, 24, 8},
                                 {513, 23, 130}, {4200, 3, 2}, {33, 64, 64}, {97, 65, 100}, {129, 130, 66}};

}  // namespace

TEST_CASE("linear") {
  for (auto [T, N, K] : sizes)
    with_and_without_amx([&, T = T, N = N, K = K](bool amx) {
      const std::vector<Array> inputs = {normal({T, K}, 1), normal({N, K}, 2), normal({N}, 3), normal({T, N}, 4)};
      const std::string size = fmt::format("T {} N {} K {}{}", T, N, K, amx ? " by AMX" : "");
      check_op({.name = "linear " + size,
                .inputs = {inputs.begin(), inputs.begin() + 2},
                .op = [](auto& v) { return std::vector{linear(v[0], v[1], {})}; },
                .oracle = [](auto& v) { return std::vector{naive_linear(v)}; }});
      check_op({.name = "linear with bias " + size,
                .inputs = {inputs.begin(), inputs.begin() + 3},
                .op = [](auto& v) { return std::vector{linear(v[0], v[1], v[2])}; },
                .oracle = [](auto& v) { return std::vector{naive_linear(v)}; }});
      check_op({.name = "linear_gelu " + size,
                .inputs = {inputs.begin(), inputs.begin() + 3},
                .op = [](auto& v) { return std::vector{linear_gelu(v[0], v[1], v[2])}; },
                .oracle =
                    [](auto& v) {
                      Array y = naive_linear(v);
                      for (double& e : y.values) e = gelu(e);
                      return std::vector{y};
                    }});
      check_op({.name = "linear_residual " + size,
                .inputs = inputs,
                .op = [](auto& v) { return std::vector{linear_residual(v[0], v[1], v[2], v[3])}; },
                .oracle =
                    [](auto& v) {
                      Array y = naive_linear({v[0], v[1], v[2]});
                      for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] += v[3][i];
                      return std::vector{y};
                    }});
    });
}

TEST_CASE("f32 products through AMX tiles are as exact as any in f32") {
  // Columns of x and w whose products are of one size, though they are of many.
  const int64_t T = 70, N = 96, K = 192;
  Array x = normal({T, K}, 1), w = normal({N, K}, 2);
  for (int64_t i = 0; i < x.shape.numel(); ++i) x[i] = float(std::ldexp(x[i], int(i % K % 61) - 30));
  for (int64_t i = 0; i < w.shape.numel(); ++i) w[i] = float(std::ldexp(w[i], 30 - int(i % K % 61)));
  with_and_without_amx([&](bool amx) {
    Context ctx;
    Tensor y = ctx.empty({T, N}, DType::f32);
    kernels::linear(ctx, to_tensor(ctx, x, DType::f32), to_tensor(ctx, w, DType::f32), Tensor(), y);
    double worst = 0;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t n = 0; n < N; ++n) {
        double sum = 0, size = 0;
        for (int64_t k = 0; k < K; ++k) {
          sum += x[t * K + k] * w[n * K + k];
          size += std::abs(x[t * K + k] * w[n * K + k]);
        }
        worst = std::max(worst, std::abs(y.data<float>()[t * N + n] - sum) / size);
      }
    CAPTURE(amx);
    CHECK(worst < 4 * 0x1p-24);
    CHECK(worst > 0);
  });
}

TEST_CASE("linear takes vectors [T, 4, C] as 4T rows") {
  check_op({.name = "linear of vectors",
            .inputs = {normal({5, 4, 7}, 1), normal({6, 7}, 2)},
            .op = [](auto& v) { return std::vector{linear(v[0], v[1], {})}; },
            .oracle = [](auto& v) { return std::vector{naive_linear(v)}; }});
}

TEST_CASE("matmul") {
  for (auto [M, N, K] : sizes)
    for (bool ta : {false, true})
      for (bool tb : {false, true})
        check_op({.name = fmt::format("matmul M {} N {} K {} {} {}", M, N, K, ta, tb),
                  .inputs = {normal(ta ? Shape{K, M} : Shape{M, K}, 1), normal(tb ? Shape{N, K} : Shape{K, N}, 2)},
                  .op = [=](auto& v) { return std::vector{matmul(v[0], v[1], ta, tb)}; },
                  .oracle =
                      [=](auto& v) {
                        return std::vector{naive_linear({ta ? transposed(v[0]) : v[0], tb ? v[1] : transposed(v[1])})};
                      }});
}

TEST_CASE("amp: bf16 operands, f32 results and gradients") {
  // The operands lose what bf16 loses, so bf16's row of the table holds and not f32's.
  const double factor = tolerance(DType::bf16) / tolerance(DType::f32);
  for (auto [T, N, K] : sizes) {
    const std::string size = fmt::format("T {} N {} K {}", T, N, K);
    // Weights as a network has them: results of order 1, so that db, a sum of random signs, is not all rounding.
    const double scale = 1 / std::sqrt(std::max<double>(1, K));
    const std::vector<Array> inputs = {normal({T, K}, 1), normal({N, K}, 2, scale), normal({N}, 3)};
    check_op({.name = "amp linear_gelu " + size,
              .inputs = inputs,
              .op =
                  [](auto& v) {
                    v[0].tape().set_amp(true);
                    return std::vector{linear_gelu(v[0], v[1], v[2])};
                  },
              .oracle =
                  [](auto& v) {
                    Array y = naive_linear(v);
                    for (double& e : y.values) e = gelu(e);
                    return std::vector{y};
                  },
              .dtypes = {DType::f32},
              .tolerance_factor = factor});
    for (bool ta : {false, true})
      check_op({.name = fmt::format("amp matmul {} {}", size, ta),
                .inputs = {ta ? transposed(inputs[0]) : inputs[0], inputs[1]},
                .op =
                    [=](auto& v) {
                      v[0].tape().set_amp(true);
                      return std::vector{matmul(v[0], v[1], ta, true)};
                    },
                .oracle =
                    [=](auto& v) {
                      return std::vector{naive_linear({ta ? transposed(v[0]) : v[0], v[1]})};
                    },
                .dtypes = {DType::f32},
                .tolerance_factor = factor});
  }
}

// Tighter than bf16's tolerance: what amp computes is what the rounded operands give, with sums in f32. Only the
// products of the backward lose more, where they round dy.
TEST_CASE("amp rounds the operands and nothing else") {
  for (auto [T, N, K] : {Size{65, 33, 40}, {145, 1, 65}}) {
    Context ctx;
    const Array x = normal({T, K}, 1), w = normal({N, K}, 2), b = normal({N}, 3), dy = normal({T, N}, 4);
    auto run = [&](const Array& x, const Array& w, DType dtype, bool amp) {
      Tape tape(ctx);
      tape.set_amp(amp);
      auto variable = [&](const Array& a) { return tape.variable(to_tensor(ctx, a, dtype)); };
      const Var vx = variable(x), vw = variable(w), vb = variable(b);
      const Var y = linear_gelu(vx, vw, vb);
      CHECK(y.dtype() == dtype);
      tape.backward(y, to_tensor(ctx, dy, dtype));
      std::vector<Array> results = {to_array(y.value())};
      for (const Var& v : {vb, vx, vw}) results.push_back(to_array(tape.gradient(v)));
      return results;
    };
    auto rounded = [&](const Array& a) { return to_array(to_tensor(ctx, a, DType::bf16)); };
    const auto amp = run(x, w, DType::f32, true), exact = run(rounded(x), rounded(w), DType::f64, false);
    for (size_t i = 0; i < amp.size(); ++i)
      CHECK(relative_error(amp[i], exact[i]) <= tolerance(i < 2 ? DType::f32 : DType::bf16));
    CHECK(relative_error(amp[0], run(x, w, DType::f64, false)[0]) > tolerance(DType::f32));
  }
}

// A jet's score must not depend on its batch: the same row gives the same bits in any batch, at any place.
// On a GPU cuBLASLt's stand-in holds this by itself; fewer shapes and places there, for the time that gelu takes.
TEST_CASE("a row's result does not depend on the other rows") {
  using Counts = std::vector<int64_t>;
  auto check = [](Device device, DType dtype, int64_t N, int64_t K, const Counts& counts, const Counts& firsts) {
    Context ctx(device, 2), cpu(1);
    const int64_t T = 300;
    const Tensor x = to_tensor(ctx, normal({T, K}, 1), dtype), w = to_tensor(ctx, normal({N, K}, 2), dtype);
    const Tensor b = to_tensor(ctx, normal({N}, 3), dtype);
    const Tensor weights = to_tensor(ctx, normal({K, N}, 4), dtype);  // of the backward's product
    auto forward = [&](const Tensor& rows) {
      Tensor y = ctx.empty({rows.dim(0), N}, dtype), pre;
      kernels::linear_gelu(ctx, rows, w, b, pre, y);
      return y;
    };
    auto backward = [&](const Tensor& rows) {
      Tensor dx = ctx.empty({rows.dim(0), N}, dtype);
      kernels::linear_backward(ctx, rows, dx, weights, &dx, nullptr, nullptr);
      return dx;
    };
    const Tensor y = cpu.copy(forward(x)), dx = cpu.copy(backward(x));
    int64_t different = 0;
    for (int64_t count : counts)
      for (int64_t first : firsts) {
        const Tensor part = x.narrow(first, count);
        different += !same_bits(cpu.copy(forward(part)), y.narrow(first, count));
        different += !same_bits(cpu.copy(backward(part)), dx.narrow(first, count));
      }
    CHECK_MESSAGE(different == 0, fmt::format("{} N {} K {} on {}", dtype, N, K, device));
  };
  for (DType dtype : {DType::f64, DType::f32, DType::bf16})
    for (Device device : devices()) {
      if (device == Device::cuda) {
        check(device, dtype, 16, 33, {1, 17, 257}, {0, 13});
        check(device, dtype, 3, 700, {1, 17, 257}, {0, 13});
        continue;
      }
      for (auto [N, K] : {std::pair{128, 7}, {384, 128}, {128, 512}, {1, 128}, {16, 32}, {3, 700}})
        check(device, dtype, N, K, {1, 2, 7, 15, 16, 17, 47, 48, 49, 50, 63, 64, 65, 100, 143, 144, 145, 257},
              {0, 1, 13, 43});
    }
}

TEST_CASE("products have the same bits for any number of threads") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    std::vector<Array> results;
    for (int threads : {1, 2, 3, 5}) {
      Context ctx(threads);
      Tape tape(ctx);
      const Var x = tape.variable(to_tensor(ctx, normal({9000, 66}, 1), dtype));
      const Var w = tape.variable(to_tensor(ctx, normal({72, 66}, 2), dtype));
      const Var b = tape.variable(to_tensor(ctx, normal({72}, 3), dtype));
      const Var y = linear_gelu(x, w, b);
      tape.backward(y, to_tensor(ctx, normal(y.shape(), 4), dtype));
      std::vector<double> all = to_array(y.value()).values;
      for (const Var& v : {x, w, b})
        for (double g : to_array(tape.gradient(v)).values) all.push_back(g);
      results.push_back({Shape{static_cast<int64_t>(all.size())}, std::move(all)});
    }
    for (const Array& r : results) CHECK(r.values == results[0].values);
  }
}

TEST_CASE("products refuse bad operands") {
  Context ctx;
  Tape tape(ctx);
  auto of = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
  CHECK_THROWS_WITH_AS(linear(of({4, 3}), of({5, 2}), {}),
                       "linear: x has shape [4, 3], expected 2 columns as w [5, 2] has", Error);
  CHECK_THROWS_WITH_AS(linear(of({}), of({5, 2}), {}), "linear: x has shape [], expected 2 columns as w [5, 2] has",
                       Error);
  CHECK_THROWS_WITH_AS(linear(of({4, 3}), of({3}), {}), "linear: w has shape [3], expected 2 axes", Error);
  CHECK_THROWS_WITH_AS(linear(of({4, 3}), of({5, 3}), of({4})), "linear: b has shape [4], expected [5]", Error);
  CHECK_THROWS_WITH_AS(linear(of({4, 3}), of({5, 3}, DType::f64), {}), "linear: x is f32, expected f64", Error);
  CHECK_THROWS_WITH_AS(linear(of({4, 3}, DType::i64), of({5, 3}), {}), "linear: x is i64, expected f32", Error);
  CHECK_THROWS_WITH_AS(linear_residual(of({4, 3}), of({5, 3}), {}, of({4, 3})),
                       "linear_residual: residual has shape [4, 3], expected [4, 5]", Error);
  CHECK_THROWS_WITH_AS(matmul(of({4, 3}), of({4, 3})), "matmul: a has shape [4, 3], b [4, 3]: the inner extents differ",
                       Error);
  CHECK_THROWS_WITH_AS(matmul(of({4}), of({4, 3})), "matmul: a has shape [4], expected 2 axes", Error);
  Tensor y = ctx.empty({4, 5}, DType::f64);
  CHECK_THROWS_WITH_AS(kernels::linear(ctx, ctx.zeros({4, 3}, DType::bf16), ctx.zeros({5, 3}, DType::bf16), {}, y),
                       "linear: y is f64, expected bf16", Error);
}

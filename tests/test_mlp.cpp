#include <doctest/doctest.h>

#include <cmath>

#include "autograd/matmul.h"
#include "kernels/mlp.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

Array naive_linear(const Array& x, const Array& w, const Array& b) {
  Array y = zeros({x.shape[0], w.shape[0]});
  for (int64_t t = 0; t < x.shape[0]; ++t)
    for (int64_t n = 0; n < w.shape[0]; ++n) {
      y.at(t, n) = b[n];
      for (int64_t k = 0; k < w.shape[1]; ++k) y.at(t, n) += x.at(t, k) * w.at(n, k);
    }
  return y;
}

struct Size {
  int64_t T, K, H, N;
};
// Around the blocks of tokens (128) and the segments (1024) of the backward, and the tiles.
const std::vector<Size> sizes = {{0, 3, 5, 2},    {1, 1, 1, 1},      {5, 4, 0, 3},   {31, 7, 33, 7},
                                 {129, 8, 31, 5}, {257, 16, 24, 16}, {2100, 3, 5, 2}};

}  // namespace

TEST_CASE("mlp") {
  for (auto [T, K, H, N] : sizes)
    for (bool amp : {false, true}) {
      const double scale = 1 / std::sqrt(std::max<double>(1, H));
      check_op({.name = fmt::format("mlp T {} K {} H {} N {} {}", T, K, H, N, amp),
                .inputs = {normal({T, K}, 1), normal({H, K}, 2, 0.5), normal({H}, 3), normal({N, H}, 4, scale),
                           normal({N}, 5), normal({T, N}, 6)},
                .op =
                    [=](auto& v) {
                      v[0].tape().set_amp(amp);
                      return std::vector{mlp(v[0], v[1], v[2], v[3], v[4], v[5])};
                    },
                .oracle =
                    [](auto& v) {
                      Array hidden = naive_linear(v[0], v[1], v[2]);
                      for (double& e : hidden.values) e *= 0.5 * std::erfc(-e / std::sqrt(2));
                      Array y = naive_linear(hidden, v[3], v[4]);
                      for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] += v[5][i];
                      return std::vector{y};
                    },
                .dtypes = amp ? std::vector{DType::f32} : std::vector{DType::f64, DType::f32, DType::bf16},
                .tolerance_factor = amp ? tolerance(DType::bf16) / tolerance(DType::f32) : 1});
    }
}

TEST_CASE("mlp has the same bits for any number of threads, and a row's do not depend on the other rows") {
  for (bool amp : {false, true}) {
    std::vector<Array> results;
    const int64_t T = 2300, K = 24, H = 40;
    const Array w1 = normal({H, K}, 2), w2 = normal({K, H}, 3), b1 = normal({H}, 4), b2 = normal({K}, 5);
    auto forward = [&](Context& ctx, Tape& tape, const Var& x) {
      tape.set_amp(amp);
      auto variable = [&](const Array& a) { return tape.variable(to_tensor(ctx, a, DType::f32)); };
      return mlp(x, variable(w1), variable(b1), variable(w2), variable(b2), x);
    };
    for (int threads : {1, 2, 5}) {
      Context ctx(threads);
      Tape tape(ctx);
      const Var x = tape.variable(to_tensor(ctx, normal({T, K}, 1), DType::f32));
      const Var y = forward(ctx, tape, x);
      std::vector<double> all = to_array(y.value()).values;
      tape.backward(y, to_tensor(ctx, normal({T, K}, 6), DType::f32));
      for (double g : to_array(tape.gradient(x)).values) all.push_back(g);
      results.push_back({Shape{static_cast<int64_t>(all.size())}, std::move(all)});
      for (int64_t count : {1, 15, 33, 450}) {
        Tape part(ctx, Tape::Mode::evaluate);
        const Array few = to_array(forward(ctx, part, part.constant(x.value().narrow(100, count))).value());
        int64_t different = 0;
        for (int64_t i = 0; i < count * K; ++i) different += few[i] != results.back()[100 * K + i];
        CHECK(different == 0);
      }
    }
    for (const Array& r : results) CHECK(r.values == results[0].values);
  }
}

TEST_CASE("mlp refuses bad operands") {
  Context ctx;
  Tape tape(ctx);
  auto of = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
  CHECK_THROWS_WITH_AS(mlp(of({4, 3}), of({8, 2}), {}, of({3, 8}), {}, of({4, 3})),
                       "mlp: x has shape [4, 3], expected 2 columns as w1 [8, 2] has", Error);
  CHECK_THROWS_WITH_AS(mlp(of({4, 3}), of({8, 3}), {}, of({3, 7}), {}, of({4, 3})),
                       "mlp: w2 has shape [3, 7], expected [3, 8]", Error);
  CHECK_THROWS_WITH_AS(mlp(of({4, 3}), of({8, 3}), of({7}), of({3, 8}), {}, of({4, 3})),
                       "mlp: b1 has shape [7], expected [8]", Error);
  CHECK_THROWS_WITH_AS(mlp(of({4, 3}), of({8, 3}), {}, of({3, 8}), {}, of({4, 2})),
                       "mlp: residual has shape [4, 2], expected [4, 3]", Error);
}

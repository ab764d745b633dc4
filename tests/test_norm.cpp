#include <doctest/doctest.h>

#include <cmath>

#include "autograd/norm.h"
#include "kernels/norm.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("layer_norm") {
  for (Shape shape : {Shape{0, 8}, {1, 1}, {1, 31}, {3, 33}, {33, 128}, {257, 129}}) {
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
  for (Shape shape : {Shape{0, 8}, {1, 1}, {1, 31}, {3, 33}, {33, 128}, {257, 129}}) {
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

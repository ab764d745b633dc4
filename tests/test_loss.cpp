#include <doctest/doctest.h>

#include <cmath>

#include "autograd/loss.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

// Around the vector blocks (64) and the chunks (4096).
const std::vector<Shape> shapes = {{1}, {31}, {33}, {64, 1}, {65}, {4097}};

// Targets that every dtype holds: 0, 1/8, …, 1.
Array eighths(Shape shape) {
  Array t = uniform(shape, 9, 0, 9);
  for (double& v : t.values) v = std::floor(v) / 8;
  return t;
}

template <class F>
std::function<std::vector<Array>(const std::vector<Array>&)> mean_of(const Array& targets, F f) {
  return [=](const std::vector<Array>& x) {
    Array loss = zeros({1});
    for (int64_t i = 0; i < targets.shape.numel(); ++i) loss[0] += f(x[0][i], targets[i]) / targets.shape.numel();
    return std::vector{loss};
  };
}

}  // namespace

TEST_CASE("bce_with_logits and mse") {
  for (Shape shape : shapes) {
    const Array targets = eighths(shape);
    check_op({.name = fmt::format("bce_with_logits {}", shape),
              .inputs = {normal(shape, 1, 3)},
              .op =
                  [&](auto& x) {
                    return std::vector{bce_with_logits(x[0], to_tensor(x[0].context(), targets, x[0].dtype()))};
                  },
              .oracle = mean_of(targets, [](double x, double t) {
                const double p = 1 / (1 + std::exp(-x));
                return -t * std::log(p) - (1 - t) * std::log(1 - p);
              })});
    check_op({.name = fmt::format("mse {}", shape),
              .inputs = {normal(shape, 1)},
              .op = [&](auto& x) { return std::vector{mse(x[0], to_tensor(x[0].context(), targets, x[0].dtype()))}; },
              .oracle = mean_of(targets, [](double x, double t) { return (x - t) * (x - t); })});
  }
}

TEST_CASE("cross_entropy") {
  for (Shape shape : {Shape{1, 1}, {1, 2}, {31, 10}, {33, 65}, {4097, 3}}) {
    std::vector<double> labels;
    for (double u : uniform({shape[0]}, 5, 0, static_cast<double>(shape[1])).values) labels.push_back(std::floor(u));
    check_op({.name = fmt::format("cross_entropy {}", shape),
              .inputs = {normal(shape, 1, 2)},
              .op =
                  [&](auto& x) {
                    return std::vector{cross_entropy(x[0], x[0].context().of({shape[0]}, DType::i64, labels))};
                  },
              .oracle =
                  [&](auto& x) {
                    Array loss = zeros({1});
                    for (int64_t b = 0; b < shape[0]; ++b) {
                      double sum = 0;
                      for (int64_t c = 0; c < shape[1]; ++c) sum += std::exp(x[0].at(b, c));
                      loss[0] -= std::log(std::exp(x[0].at(b, static_cast<int64_t>(labels[b]))) / sum) / shape[0];
                    }
                    return std::vector{loss};
                  }});
  }
}

TEST_CASE("losses do not overflow and keep small numbers") {
  for (Device device : devices())
    for (DType dtype : {DType::f64, DType::f32}) {
      INFO(name_of(dtype), " on ", name_of(device));
      Context ctx(device, 1);
      auto loss = [&](double logit, double target) {
        Tape tape(ctx);
        const Var x = tape.variable(ctx.of({1}, dtype, {&logit, 1}));
        const Var l = bce_with_logits(x, ctx.of({1}, dtype, {&target, 1}));
        tape.backward(l);
        return std::pair{l.value().item(), tape.gradient(x).item()};
      };
      CHECK(loss(1000, 1) == std::pair{0., 0.});
      CHECK(loss(-1000, 1) == std::pair{1000., -1.});
      CHECK(loss(1000, 0) == std::pair{1000., 1.});
      CHECK(loss(30, 1).first == doctest::Approx(std::exp(-30)).epsilon(1e-6));

      Tape tape(ctx);
      const Var x = tape.variable(ctx.of({1, 2}, dtype, std::vector<double>{1000, -1000}));
      const Var l = cross_entropy(x, ctx.of({1}, DType::i64, std::vector<double>{1}));
      tape.backward(l);
      CHECK(l.value().item() == 2000);
      CHECK(to_array(tape.gradient(x)).values == std::vector<double>{1, -1});
    }
}

TEST_CASE("losses refuse bad operands") {
  for (Device device : devices()) {
    INFO("on ", name_of(device));
    Context ctx(device, 1);
    Tape tape(ctx);
    auto zeros_of = [&](Shape shape, DType dtype = DType::f32) { return ctx.zeros(shape, dtype); };
    auto of = [&](Shape shape) { return tape.constant(zeros_of(shape)); };
    CHECK_THROWS_WITH_AS(bce_with_logits(of({3}), zeros_of({4})),
                         "bce_with_logits: targets has shape [4], expected [3]", Error);
    CHECK_THROWS_WITH_AS(bce_with_logits(of({3}), zeros_of({3}, DType::f64)),
                         "bce_with_logits: targets is f64, expected f32", Error);
    CHECK_THROWS_WITH_AS(mse(of({0}), zeros_of({0})), "mse: predictions has shape [0]; there is no mean of 0 elements",
                         Error);
    CHECK_THROWS_WITH_AS(cross_entropy(of({3}), zeros_of({3}, DType::i64)),
                         "cross_entropy: logits has shape [3], expected 2 axes", Error);
    CHECK_THROWS_WITH_AS(cross_entropy(of({3, 2}), zeros_of({3})), "cross_entropy: labels is f32, expected i64", Error);
    for (double label : {-1., 2.}) {
      if (device != Device::cpu) continue;
      CHECK_THROWS_WITH_AS(cross_entropy(of({1, 2}), ctx.of({1}, DType::i64, {&label, 1})),
                           fmt::format("cross_entropy: label 0 is {}, expected 0 to 1", label).c_str(), Error);
    }
  }
}

#ifdef LIGHTCONE_TEST_CUDA
TEST_CASE("a label that is no class makes the loss and its row's gradient NaN on a GPU") {
  Context ctx(Device::cuda, 1);
  Tape tape(ctx);
  const Var x = tape.variable(to_tensor(ctx, normal({70, 3}, 1), DType::f32));
  std::vector<double> labels(70, 1);
  labels[2] = 3, labels[66] = -1;
  const Var loss = cross_entropy(x, ctx.of({70}, DType::i64, labels));
  CHECK(std::isnan(loss.value().item()));
  tape.backward(loss);
  const Array dx = to_array(tape.gradient(x));
  for (int64_t b = 0; b < 70; ++b)
    for (int64_t c = 0; c < 3; ++c) CHECK(std::isnan(dx.at(b, c)) == (b == 2 || b == 66));
}
#endif

#include "autograd/geometric_algebra.h"

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/elementwise.h"
#include "engine/safetensors.h"
#include "kernels/geometric_algebra_math.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/multivectors.h"

using namespace lightcone;
using namespace lightcone::test;
namespace ga = lightcone::geometric_algebra;

namespace {

// Shapes [T, 16, C]: nothing, one, odd, around a register of 8 or 16 and several chunks.
const Shape shapes[] = {{0, 16, 3}, {1, 16, 1}, {3, 16, 7}, {5, 16, 17}, {70, 16, 32}};

Array naive_geometric_product(const Array& l, const Array& r) {
  Array y = zeros(l.shape);
  const int64_t T = l.shape[0], C = l.shape[2];
  for (int j = 0; j < 16; ++j)
    for (int k = 0; k < 16; ++k) {
      const NaiveBlade b = naive_product(blade_names[j], blade_names[k]);
      const int i = blade_index(b.name);
      for (int64_t t = 0; t < T; ++t)
        for (int64_t c = 0; c < C; ++c)
          y[(t * 16 + i) * C + c] += b.sign * l[(t * 16 + j) * C + c] * r[(t * 16 + k) * C + c];
    }
  return y;
}

double naive_gate(Gate f, double s) {
  switch (f) {
    case Gate::relu:
      return std::max(s, 0.);
    case Gate::sigmoid:
      return 1 / (1 + std::exp(-s));
    case Gate::gelu:
      return 0.5 * s * (1 + std::tanh(std::sqrt(2 / M_PI) * (s + 0.044715 * s * s * s)));
    case Gate::silu:
      return s / (1 + std::exp(-s));
  }
  return NAN;
}

constexpr Gate gates[] = {Gate::relu, Gate::sigmoid, Gate::gelu, Gate::silu};

}  // namespace

TEST_CASE("geometric algebra: the compiler's tables are those of a naive algebra, and of the references") {
  Context ctx(1);
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/lgatr.safetensors");
  const Array metric = to_array(file.load(ctx, "tables/inner_product_factors"));
  const Tensor product = file.load(ctx, "tables/geometric_product_ijk");
  for (int j = 0; j < 16; ++j) {
    CHECK(ga::metric(ga::generators[j]) == naive_metric(j));
    CHECK(metric[j] == naive_metric(j));
    for (int k = 0; k < 16; ++k) {
      const NaiveBlade naive = naive_product(blade_names[j], blade_names[k]);
      const uint8_t a = ga::generators[j], b = ga::generators[k];
      CHECK(ga::product_sign(a, b) == naive.sign);
      CHECK(ga::generators[blade_index(naive.name)] == (a ^ b));
      for (int i = 0; i < 16; ++i)
        CHECK(product.data<int8_t>()[(i * 16 + j) * 16 + k] == (i == blade_index(naive.name) ? naive.sign : 0));
    }
  }
}

TEST_CASE("geometric algebra: embed and extract") {
  const std::pair<Blades, std::vector<int>> parts[] = {{Blades::scalar, {0}},
                                                       {Blades::vector, {1, 2, 3, 4}},
                                                       {Blades::bivector, {5, 6, 7, 8, 9, 10}},
                                                       {Blades::axial_vector, {14, 13, 12, 11}},
                                                       {Blades::pseudoscalar, {15}}};
  for (const auto& [blades, which] : parts)
    for (Shape shape : {Shape{0, 0, 3}, {3, 0, 7}}) {
      shape[1] = static_cast<int64_t>(which.size());
      // All components of what was embedded, and the part of all components.
      check_op({.name = fmt::format("embed {}", shape),
                .inputs = {normal(shape, 1)},
                .op = [&](auto& x) { return std::vector{extract(embed(x[0], blades), Blades::multivector)}; },
                .oracle =
                    [&](const auto& x) {
                      Array y = zeros({shape[0], 16, shape[2]});
                      for (int64_t i = 0; i < shape.numel(); ++i) {
                        const int64_t c = i % shape[2], p = i / shape[2] % shape[1], t = i / shape[2] / shape[1];
                        y[(t * 16 + which[p]) * shape[2] + c] = x[0][i];
                      }
                      return std::vector{y};
                    }});
      check_op({.name = fmt::format("extract {}", shape),
                .inputs = {normal({shape[0], 16, shape[2]}, 1)},
                .op = [&](auto& x) { return std::vector{extract(embed(x[0], Blades::multivector), blades)}; },
                .oracle =
                    [&](const auto& x) {
                      Array y = zeros(shape);
                      for (int64_t i = 0; i < shape.numel(); ++i) {
                        const int64_t c = i % shape[2], p = i / shape[2] % shape[1], t = i / shape[2] / shape[1];
                        y[i] = x[0][(t * 16 + which[p]) * shape[2] + c];
                      }
                      return std::vector{y};
                    }});
    }
}

namespace {
// Two multivectors side by side, for geometric_product().
Var side_by_side(const Var& l, const Var& r) { return concat({l, r}); }
}  // namespace

TEST_CASE("geometric algebra: the product") {
  for (const Shape& shape : shapes)
    check_op({.name = fmt::format("geometric_product {}", shape),
              .inputs = {normal(shape, 1), normal(shape, 2)},
              .op =
                  [](auto& x) {
                    const Var l = embed(x[0], Blades::multivector), r = embed(x[1], Blades::multivector);
                    return std::vector{extract(geometric_product(side_by_side(l, r)), Blades::multivector)};
                  },
              .oracle = [](const auto& x) { return std::vector{naive_geometric_product(x[0], x[1])}; }});
}

TEST_CASE("geometric algebra: gates") {
  for (Gate f : gates)
    for (const Shape& shape : shapes)
      check_op({.name = fmt::format("gated {} {}", int(f), shape),
                .inputs = {normal(shape, 3 + int(f))},
                .op =
                    [&](auto& x) {
                      return std::vector{extract(gated(embed(x[0], Blades::multivector), f), Blades::multivector)};
                    },
                .oracle =
                    [&](const auto& x) {
                      Array y = x[0];
                      const int64_t C = shape[2];
                      for (int64_t i = 0; i < shape.numel(); ++i)
                        y[i] *= naive_gate(f, x[0][i / (16 * C) * 16 * C + i % C]);
                      return std::vector{y};
                    }});
}

TEST_CASE("geometric algebra: primitives of the references") {
  for (Device device : devices()) {
    Context ctx(device, 1), cpu(1);
    const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/lgatr.safetensors");
    auto array = [&](const std::string& name) { return channel_last(to_array(file.load(cpu, "prim/" + name))); };
    using F = std::function<Var(const Var&, const Var&)>;
    const std::vector<std::pair<std::string, F>> cases = {
        {"geometric_product", [](const Var& x, const Var& y) { return geometric_product(side_by_side(x, y)); }},
        {"equi_layer_norm", [](const Var& x, const Var&) { return equi_norm(x); }},
        {"gated_gelu", [](const Var& x, const Var&) { return gated(x, Gate::gelu); }},
        {"gated_relu", [](const Var& x, const Var&) { return gated(x, Gate::relu); }},
        {"gated_sigmoid", [](const Var& x, const Var&) { return gated(x, Gate::sigmoid); }},
        {"gated_silu", [](const Var& x, const Var&) { return gated(x, Gate::silu); }}};
    for (const auto& [name, f] : cases) {
      INFO(name);
      Tape tape(ctx);
      const Var x = tape.variable(to_tensor(ctx, array("x"), DType::f64)),
                y = tape.variable(to_tensor(ctx, array("y"), DType::f64));
      const Var out = extract(f(embed(x, Blades::multivector), embed(y, Blades::multivector)), Blades::multivector);
      CHECK(relative_error(to_array(out.value()), array(name)) < 1e-14);
      tape.backward(out, to_tensor(ctx, array("grad_out"), DType::f64));
      CHECK(relative_error(to_array(tape.gradient(x)), array(name + "_grad_x")) < 1e-13);
      if (name == "geometric_product")
        CHECK(relative_error(to_array(tape.gradient(y)), array(name + "_grad_y")) < 1e-13);
    }
    // Embeddings of one channel: [T, 16] and [T, 4].
    Tape tape(ctx);
    const Array p = to_array(file.load(cpu, "prim/embed_vector_in"));
    const Var four = tape.constant(to_tensor(ctx, p, DType::f64).reshape({5, 4, 1}));
    auto flat = [](const Var& v) { return to_array(v.value().reshape({5, v.dim(1)})); };
    CHECK(relative_error(flat(extract(embed(four, Blades::vector), Blades::multivector)),
                         to_array(file.load(cpu, "prim/embed_vector"))) == 0);
    CHECK(relative_error(flat(extract(embed(four, Blades::axial_vector), Blades::multivector)),
                         to_array(file.load(cpu, "prim/embed_axialvector"))) == 0);
  }
}

TEST_CASE("geometric algebra: results in bf16 are those in f32, rounded, and the backward reads them as f32") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    ctx.allocator().set_guard(true);
    for (int64_t C : {2, 8, 17, 32}) {
      const Tensor x = bf16_values(ctx, normal({8, 6, 4 * C}, 1));
      auto run = [&](auto&& f, DType result, const Tensor& dy) {
        Tape tape(ctx);
        const Var in = tape.variable(x);
        const Var y = f(in, result);
        tape.backward(y, as(ctx, dy, result));
        return std::pair{y.value(), tape.gradient(in)};
      };
      auto compare = [&](auto&& f, const Shape& shape) {
        const Tensor dy = bf16_values(ctx, normal(shape, 2));
        const auto [y, dx] = run(f, DType::f32, dy);
        const auto [small, dsmall] = run(f, DType::bf16, dy);
        CHECK(same_bits(small, as(ctx, y, DType::bf16)));
        CHECK(dsmall.dtype() == DType::f32);
        return largest_difference(dsmall, dx);
      };
      CHECK(compare([](const Var& v, DType d) { return geometric_product(v, d); }, {8, 6, 2 * C}) == 0);
      CHECK(compare([](const Var& v, DType d) { return gated(v, Gate::gelu, d); }, x.shape()) == 0);
      // The norm's backward reads its rounded result.
      CHECK(compare([&](const Var& v, DType d) { return equi_norm(v, C, 0.01, d); }, x.shape()) < 0.1);
    }
    CHECK(ctx.allocator().guard_violations() == 0);
  }
}

TEST_CASE("geometric algebra: refuses bad operands") {
  Context ctx;
  Tape tape(ctx);
  auto of = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
  REFUSED("geometric_product: lr has shape [16, 3, 4], expected 8 pairs of components and an even number of columns",
          geometric_product(of({16, 3, 4})));
  REFUSED("geometric_product: lr has 6 columns, expected a multiple of 4", geometric_product(of({8, 3, 6})));
  REFUSED("geometric_product: lr has shape [3, 4], expected 3 axes", geometric_product(of({3, 4})));
  REFUSED("geometric_product: y is f64, expected f32 or bf16", geometric_product(of({8, 3, 4}), DType::f64));
  REFUSED("gated: x has shape [8, 3, 5], expected 8 pairs of components and an even number of columns",
          gated(of({8, 3, 5}), Gate::gelu));
  REFUSED("gated: x is i32, expected f64, f32 or bf16", gated(of({8, 3, 4}, DType::i32), Gate::gelu));
  REFUSED("equi_norm: groups of 3 channels, expected a divisor of 4", equi_norm(of({8, 3, 8}), 3));
  REFUSED("equi_norm: groups of -1 channels, expected a divisor of 4", equi_norm(of({8, 3, 8}), -1));
  REFUSED("equi_norm: eps is 0, expected a positive number", equi_norm(of({8, 3, 8}), 0, 0));
  REFUSED("embed: x has shape [3, 5, 2], expected [3, 4, 2]", embed(of({3, 5, 2}), Blades::vector));
  REFUSED("extract: y has shape [8, 3, 3], expected 8 pairs of components and an even number of columns",
          extract(of({8, 3, 3}), Blades::vector));
#undef REFUSED
}

TEST_CASE("geometric algebra: dropout is the same on every device, recorded numbers too") {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16})
    for (bool recorded : {false, true}) {
      Tensor first;
      for (Device device : devices()) {
        Context ctx(device, 1, 5);
        const Draw draw = ctx.rng().draw("dropout", 5 * 7 * 5);
        Draw used = draw;
        if (recorded) {
          std::vector<double> numbers;
          for (int64_t i = 0; i < 5 * 7 * 5; ++i) numbers.push_back(draw.uniform((i + 3) % 175));
          used.recorded = std::make_shared<const std::vector<double>>(numbers);
        }
        Tensor x = to_tensor(ctx, normal({8, 7, 10}, 1), dtype);
        kernels::grade_dropout(ctx, used, 0.3, x, x);
        if (!first.defined()) first = x;
        CHECK(same_bits(first, x));
      }
    }
}

TEST_CASE("geometric algebra: dropout takes whole grades, and its gradient the same") {
  for (Device device : devices()) {
    Context ctx(device, 2, 5);
    Array ones = zeros({200, 16, 3});
    for (double& v : ones.values) v = 1;
    Tape tape(ctx);
    const Var x = tape.variable(to_tensor(ctx, ones, DType::f32));
    const Var y = extract(grade_dropout(embed(x, Blades::multivector), 0.25), Blades::multivector);
    const Array out = to_array(y.value());
    static const int grades[] = {0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4}, first[] = {0, 1, 5, 11, 15};
    int kept[5] = {};
    for (int64_t t = 0; t < 200; ++t)
      for (int64_t c = 0; c < 3; ++c)
        for (int64_t i = 0; i < 16; ++i) {
          const double value = out[(t * 16 + i) * 3 + c];
          CHECK((value == 0 || value == doctest::Approx(4. / 3)));
          CHECK(value == out[(t * 16 + first[grades[i]]) * 3 + c]);
          kept[grades[i]] += i == first[grades[i]] && value != 0;
        }
    for (int k : kept) CHECK(std::abs(k - 450) < 55);  // five standard deviations of 600 draws
    tape.backward(y, to_tensor(ctx, ones, DType::f32));
    CHECK(same_bits(tape.gradient(x), y.value()));
    Tape evaluate(ctx, Tape::Mode::evaluate);
    const Var same = evaluate.constant(ctx.zeros({8, 2, 2}, DType::f32));
    CHECK(grade_dropout(same, 0.5).value().raw() == same.value().raw());
    CHECK_THROWS_WITH_AS(grade_dropout(tape.constant(same.value()), 1), "grade_dropout: p is 1, expected [0, 1)",
                         Error);
  }
}

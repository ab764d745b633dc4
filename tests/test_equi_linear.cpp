#include "autograd/equi_linear.h"

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/elementwise.h"
#include "autograd/module.h"
#include "autograd/weights.h"
#include "engine/safetensors.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/multivectors.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

/// basis[b][i][j] of the references' ten maps, from the algebra: grade projections, then I x of each grade for even
/// and -I x for odd ones, up to the sign of each grade; their table is what a test below compares with.
struct Basis {
  double at[10][16][16] = {};
  Basis() {
    static const int first[] = {0, 1, 5, 11, 15, 16};
    for (int k = 0; k < 5; ++k)
      for (int i = first[k]; i < first[k + 1]; ++i) at[k][i][i] = 1;
    // Basis 5 + k reads grade k and gives grade 4 - k; its dual turns the blade A into what completes it to 0123.
    auto dual = [&](int b, int to, int from, double sign) { at[b][to][from] = sign; };
    dual(5, 15, 0, 1), dual(9, 0, 15, -1);
    dual(6, 11, 4, 1), dual(6, 12, 3, -1), dual(6, 13, 2, 1), dual(6, 14, 1, 1);
    dual(8, 1, 14, -1), dual(8, 2, 13, -1), dual(8, 3, 12, 1), dual(8, 4, 11, -1);
    dual(7, 5, 10, -1), dual(7, 6, 9, 1), dual(7, 7, 8, -1), dual(7, 8, 7, 1), dual(7, 9, 6, -1), dual(7, 10, 5, 1);
  }
};

/// One map of plain arrays x [T, 16, C], s [T, S]: y [T, 16, N], y_s [T, So].
std::pair<Array, Array> naive(const Array& x, const Array& s, const Array& w, const Array& s2mvs, const Array& b,
                              const Array& mvs2s, const Array& bs, const Array& s2s) {
  static const Basis basis;
  const int64_t T = x.shape[0], C = x.shape[2], N = w.shape[0], B = w.shape[2], S = s.shape[1], So = s2s.shape[0],
                mix = B == 10 ? 2 : 1;
  Array y = zeros({T, 16, N}), y_s = zeros({T, So});
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t o = 0; o < N; ++o) {
      for (int64_t i = 0; i < C; ++i)
        for (int64_t k = 0; k < B; ++k)
          for (int p = 0; p < 16; ++p)
            for (int q = 0; q < 16; ++q)
              y[(t * 16 + p) * N + o] += w[(o * C + i) * B + k] * basis.at[k][p][q] * x[(t * 16 + q) * C + i];
      for (int64_t h = 0; h < mix; ++h) {
        double& to = y[(t * 16 + 15 * h) * N + o];
        to += b[o * mix + h];
        for (int64_t i = 0; i < S; ++i) to += s2mvs.at(o * mix + h, i) * s.at(t, i);
      }
    }
    for (int64_t r = 0; r < So; ++r) {
      y_s.at(t, r) = bs[r];
      for (int64_t i = 0; i < C; ++i)
        for (int64_t h = 0; h < mix; ++h) y_s.at(t, r) += mvs2s.at(r, i * mix + h) * x[(t * 16 + 15 * h) * C + i];
      for (int64_t i = 0; i < S; ++i) y_s.at(t, r) += s2s.at(r, i) * s.at(t, i);
    }
  }
  return {y, y_s};
}

EquiLinearParameters parameters(const std::vector<Var>& v, size_t first) {
  return {v[first], {}, v[first + 1], v[first + 2], v[first + 3], v[first + 4], v[first + 5]};
}

}  // namespace

TEST_CASE("equi_linear: the basis of the references") {
  Context ctx(1);
  const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/lgatr.safetensors");
  const Array table = to_array(file.load(ctx, "tables/linear_basis_subgroup10"));
  static const Basis basis;
  for (int b = 0; b < 10; ++b)
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 16; ++j) CHECK(basis.at[b][i][j] == table[(b * 16 + i) * 16 + j]);
}

TEST_CASE("equi_linear: maps of multivectors and scalars") {
  struct Size {
    int64_t T, C, N, S, So, basis;
  };
  for (const Size& z : {Size{0, 2, 3, 2, 1, 10},
                        {1, 1, 1, 1, 1, 10},
                        {5, 3, 2, 4, 5, 10},
                        {5, 3, 2, 4, 5, 5},
                        {7, 4, 3, 0, 2, 10},
                        {7, 2, 4, 3, 0, 10},
                        {131, 9, 8, 3, 5, 10}}) {
    const int64_t mix = z.basis == 10 ? 2 : 1;
    std::vector<Array> inputs = {normal({z.T, 16, z.C}, 1),   normal({z.T, z.S}, 2),  normal({z.N, z.C, z.basis}, 3),
                                 normal({mix * z.N, z.S}, 4), normal({mix * z.N}, 5), normal({z.So, mix * z.C}, 6),
                                 normal({z.So}, 7),           normal({z.So, z.S}, 8), normal({z.T, 16, z.N}, 9),
                                 normal({z.T, z.So}, 10)};
    check_op({.name = fmt::format("equi_linear T {} C {} N {} S {} So {}, {} maps", z.T, z.C, z.N, z.S, z.So, z.basis),
              .inputs = inputs,
              .op =
                  [&](auto& v) {
                    EquiLinearOptions options;
                    options.residual = embed(v[8], Blades::multivector);
                    if (z.So) options.residual_s = v[9];
                    const Multivectors y =
                        equi_linear({embed(v[0], Blades::multivector), v[1]}, {parameters(v, 2)}, options);
                    std::vector<Var> out = {extract(y.mv, Blades::multivector)};
                    if (z.So) out.push_back(y.s);
                    return out;
                  },
              .oracle =
                  [&](const auto& v) {
                    auto [y, y_s] = naive(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
                    for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] += v[8][i];
                    for (int64_t i = 0; i < y_s.shape.numel(); ++i) y_s[i] += v[9][i];
                    std::vector<Array> out = {y};
                    if (z.So) out.push_back(y_s);
                    return out;
                  }});
  }
}

// Two maps side by side, heads with factors, groups of columns: what L-GATr's attention asks for, one after the other.
TEST_CASE("equi_linear: groups, factors of heads and signs of queries") {
  const int64_t T = 6, C = 4, S = 2, heads = 2;
  std::vector<Array> inputs = {normal({T, 16, C}, 1), normal({T, S}, 2)};
  for (uint64_t map = 0; map < 3; ++map) {
    const int64_t in = map < 2 ? C : 6, out = map == 0 ? 4 : 2, s_in = map < 2 ? S : 8, s_out = map == 0 ? 6 : 2;
    for (const Shape& shape : {Shape{out, in, 10}, {2 * out, s_in}, {2 * out}, {s_out, 2 * in}, {s_out}, {s_out, s_in}})
      inputs.push_back(normal(shape, 10 * map + inputs.size()));
  }
  inputs.push_back(uniform({heads}, 99, 0.5, 2));
  check_op({.name = "equi_linear, chained",
            .inputs = inputs,
            .op =
                [&](auto& v) {
                  // 4 + 2 channels in groups of 3, of which the first 3 get a sign; 6 + 2 scalars.
                  const Multivectors hidden =
                      equi_linear({embed(v[0], Blades::multivector), v[1]}, {parameters(v, 2), parameters(v, 8)},
                                  {.layout = {.out_group = 3, .negated = 3}});
                  const Multivectors y =
                      equi_linear(hidden, {parameters(v, 14)}, {.layout = {.in_group = 3}, .head_scale = v[20]});
                  return std::vector{extract(y.mv, Blades::multivector), y.s};
                },
            .oracle =
                [&](const auto& v) {
                  const auto [y1, s1] = naive(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
                  const auto [y2, s2] = naive(v[0], v[1], v[8], v[9], v[10], v[11], v[12], v[13]);
                  Array h = zeros({T, 16, 6}), hs = zeros({T, 8});
                  for (int64_t t = 0; t < T; ++t) {
                    for (int64_t i = 0; i < 16; ++i)
                      for (int64_t c = 0; c < 6; ++c) {
                        const double value = c < 4 ? y1[(t * 16 + i) * 4 + c] : y2[(t * 16 + i) * 2 + c - 4];
                        // Half 1 of pairs holds axial vectors, the pseudoscalar, and e12, e13, e23.
                        h[(t * 16 + i) * 6 + c] = value * (c < 3 && i >= 8 ? -1 : 1) * v[20][c / 3];
                      }
                    for (int64_t c = 0; c < 8; ++c)
                      hs.at(t, c) = (c < 6 ? s1.at(t, c) : s2.at(t, c - 6)) * v[20][c / 4];
                  }
                  const auto [y, s] = naive(h, hs, v[14], v[15], v[16], v[17], v[18], v[19]);
                  return std::vector{y, s};
                },
            // Two products, one after the other, of sums that cancel.
            .tolerance_factor = 2});
}

TEST_CASE("equi_linear: primitives and layers of the references") {
  for (Device device : devices()) {
    Context ctx(device, 1), cpu(1);
    const Safetensors file(LIGHTCONE_SOURCE_DIR "/tests/golden/frames/lgatr.safetensors");
    auto load = [&](const std::string& name) { return to_array(file.load(cpu, name)); };
    Tape tape(ctx);
    auto variable = [&](const Array& a) { return tape.variable(to_tensor(ctx, a, DType::f64)); };
    {
      const Var x = variable(channel_last(load("prim/x"))), w = variable(load("prim/equi_linear_coeffs"));
      const Var y = extract(equi_linear({embed(x, Blades::multivector), {}}, {{.weight = w}}).mv, Blades::multivector);
      CHECK(relative_error(to_array(y.value()), channel_last(load("prim/equi_linear"))) < 1e-14);
      tape.backward(y, to_tensor(ctx, channel_last(load("prim/equi_linear_grad_out")), DType::f64));
      CHECK(relative_error(to_array(tape.gradient(x)), channel_last(load("prim/equi_linear_grad_x"))) < 1e-14);
      CHECK(relative_error(to_array(tape.gradient(w)), load("prim/equi_linear_grad_coeffs")) < 1e-14);
    }
    for (const char* layer : {"equi_linear", "equi_linear_noscalar", "equi_linear_s_in_only"}) {
      INFO(layer);
      const std::string at = fmt::format("layer/{}/", layer);
      Tape tape(ctx);
      auto variable = [&](const Array& a) { return tape.variable(to_tensor(ctx, a, DType::f64)); };
      Array scalars = load("layer/s");
      scalars.shape = {6, 5};
      const Var x = variable(channel_last(load("layer/mv"))), s = variable(scalars);
      EquiLinearParameters p;
      const std::pair<const char*, Var EquiLinearParameters::*> names[] = {
          {"weight", &EquiLinearParameters::weight},      {"bias", &EquiLinearParameters::bias},
          {"s2mvs.weight", &EquiLinearParameters::s2mvs}, {"s2mvs.bias", &EquiLinearParameters::s2mvs_bias},
          {"mvs2s.weight", &EquiLinearParameters::mvs2s}, {"mvs2s.bias", &EquiLinearParameters::mvs2s_bias},
          {"s2s.weight", &EquiLinearParameters::s2s}};
      for (const auto& [name, member] : names)
        if (file.has(at + "param/" + name)) p.*member = variable(load(at + "param/" + name));
      const bool with_s = file.has(at + "grad/s");
      const Multivectors y = equi_linear({embed(x, Blades::multivector), with_s ? s : Var{}}, {p});
      const Var mv = extract(y.mv, Blades::multivector);
      CHECK(relative_error(to_array(mv.value()), channel_last(load(at + "out_mv"))) < 1e-14);
      std::vector<Var> results;
      std::vector<Tensor> cotangents;
      cotangents.reserve(2), results.reserve(2);
      results.push_back(mv);
      cotangents.push_back(to_tensor(ctx, channel_last(load(at + "grad_out_mv")), DType::f64));
      if (file.has(at + "out_s")) {
        CHECK(largest_difference(to_array(y.s.value().reshape({1, 6, 4})), load(at + "out_s")) < 1e-13);
        results.push_back(y.s);
        cotangents.push_back(ctx.copy(file.load(cpu, at + "grad_out_s")).reshape({6, 4}));
      }
      tape.backward(results, cotangents);
      CHECK(relative_error(to_array(tape.gradient(x)), channel_last(load(at + "grad/mv"))) < 1e-14);
      if (with_s) CHECK(relative_error(to_array(tape.gradient(s).reshape({1, 6, 5})), load(at + "grad/s")) < 1e-13);
      for (const auto& [name, member] : names)
        if (file.has(at + "grad/param/" + name))
          CHECK(relative_error(to_array(tape.gradient(p.*member)), load(at + "grad/param/" + name)) < 1e-13);
    }
  }
}

TEST_CASE("equi_linear: a parameter's matrices are made once, and bf16 activations are rounded f32 ones") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Parameter w;
    w.value = to_tensor(ctx, normal({32, 16, 10}, 1), DType::f32);
    PreparedWeights prepared(ctx);
    const Tensor x = bf16_values(ctx, normal({8, 9, 32}, 2));
    Tensor first;
    for (DType dtype : {DType::f32, DType::bf16})
      for (bool evaluate : {false, true}) {
        Tape tape(ctx, evaluate ? Tape::Mode::evaluate : Tape::Mode::train);
        tape.share(prepared);
        tape.set_amp(true);
        const Var y = equi_linear({tape.constant(as(ctx, x, dtype)), {}}, {{.weight = tape.parameter(w)}}).mv;
        CHECK(y.dtype() == DType::f32);
        if (!first.defined()) first = y.value();
        CHECK(same_bits(first, y.value()));
      }
    // A changed parameter shows only with new PreparedWeights.
    w.value = to_tensor(ctx, normal({32, 16, 10}, 3), DType::f32);
    Tape old(ctx, Tape::Mode::evaluate), fresh(ctx, Tape::Mode::evaluate);
    old.share(prepared);
    for (Tape* tape : {&old, &fresh}) {
      tape->set_amp(true);
      const Var y = equi_linear({tape->constant(x), {}}, {{.weight = tape->parameter(w)}}).mv;
      CHECK(same_bits(first, y.value()) == (tape == &old));
    }
  }
}

TEST_CASE("equi_linear: a token's result does not depend on its batch") {
  for (Device device : devices()) {
    Context ctx(device, 2);
    Tape tape(ctx, Tape::Mode::evaluate);
    const Tensor x = to_tensor(ctx, normal({8, 300, 6}, 1), DType::f32),
                 s = to_tensor(ctx, normal({300, 4}, 2), DType::f32);
    const EquiLinearParameters p = {.weight = tape.constant(to_tensor(ctx, normal({5, 3, 10}, 3), DType::f32)),
                                    .s2mvs = tape.constant(to_tensor(ctx, normal({10, 4}, 4), DType::f32)),
                                    .mvs2s = tape.constant(to_tensor(ctx, normal({2, 6}, 5), DType::f32))};
    const Multivectors all = equi_linear({tape.constant(x), tape.constant(s)}, {p});
    for (int64_t t : {0, 95, 96, 299}) {
      Tensor one = ctx.empty({8, 1, 6}, DType::f32);
      for (int i = 0; i < 8; ++i)
        ctx.allocator().copy_within(one.narrow(i, 1).raw(), x.reshape({2400, 6}).narrow(i * 300 + t, 1).raw(), 24);
      const Multivectors y = equi_linear({tape.constant(one), tape.constant(s.narrow(t, 1))}, {p});
      CHECK(same_bits(y.s.value(), all.s.value().narrow(t, 1)));
      for (int i = 0; i < 8; ++i)
        CHECK(same_bits(y.mv.value().reshape({8, 10}).narrow(i, 1),
                        all.mv.value().reshape({2400, 10}).narrow(i * 300 + t, 1)));
    }
  }
}

TEST_CASE("equi_linear: a residual of multivectors or of scalars alone") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Tape tape(ctx, Tape::Mode::evaluate);
    auto of = [&](Shape shape, uint64_t seed) {
      return tape.constant(to_tensor(ctx, normal(shape, seed), DType::f64));
    };
    const Multivectors x = {of({8, 5, 6}, 1), of({5, 4}, 2)};
    const EquiLinearParameters p = {.weight = of({2, 3, 10}, 3), .s2mvs = of({4, 4}, 4), .mvs2s = of({3, 6}, 5)};
    const Var mv = of({8, 5, 4}, 6), s = of({5, 3}, 7);
    const Multivectors plain = equi_linear(x, {p});
    auto difference = [](const Var& a, const Var& b) { return largest_difference(a.value(), b.value()); };
    for (bool of_mv : {true, false}) {
      const Multivectors y =
          equi_linear(x, {p}, of_mv ? EquiLinearOptions{.residual = mv} : EquiLinearOptions{.residual_s = s});
      CHECK(difference(y.mv, of_mv ? add(plain.mv, mv) : plain.mv) < 1e-12);
      CHECK(difference(y.s, of_mv ? plain.s : add(plain.s, s)) < 1e-12);
    }
  }
}

TEST_CASE("equi_linear: refuses bad operands") {
  Context ctx;
  Tape tape(ctx);
  auto of = [&](Shape shape, DType dtype = DType::f32) { return tape.constant(ctx.zeros(shape, dtype)); };
  const Multivectors x = {of({8, 3, 4}), of({3, 5})};
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
  REFUSED("equi_linear: no maps, expected at least one", equi_linear(x, {}));
  REFUSED("equi_linear: weight has 7 basis maps, expected 5 or 10", equi_linear(x, {{.weight = of({1, 2, 7})}}));
  REFUSED("equi_linear: s2mvs has shape [3, 5], expected [2, 5]",
          equi_linear(x, {{.weight = of({1, 2, 10}), .s2mvs = of({3, 5})}}));
  REFUSED("equi_linear: x has shape [8, 3, 4], expected [8, 3, 6]", equi_linear(x, {{.weight = of({1, 3, 10})}}));
  REFUSED("equi_linear: s has shape [3, 5], expected [3, 4]",
          equi_linear(x, {{.weight = of({1, 2, 10}), .s2mvs = of({2, 4})}}));
  REFUSED("equi_linear: in_group is 3, expected a divisor of 2",
          equi_linear(x, {{.weight = of({1, 2, 10})}}, {.layout = {.in_group = 3}}));
  REFUSED("equi_linear: head_scale has 3 entries, expected a divisor of 2 and 0",
          equi_linear(x, {{.weight = of({1, 2, 10})}}, {.head_scale = of({3})}));
  REFUSED("equi_linear: bias and s2mvs_bias, expected at most one",
          equi_linear(x, {{.weight = of({1, 2, 10}), .bias = of({1, 1}), .s2mvs_bias = of({2})}}));
  REFUSED("equi_linear: x is f64, expected f32",
          equi_linear({of({8, 3, 4}, DType::f64), {}}, {{.weight = of({1, 2, 10})}}));
#undef REFUSED
}

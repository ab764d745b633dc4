#include "autograd/gated_mlp.h"

#include <doctest/doctest.h>

#include "autograd/elementwise.h"
#include "autograd/gated_unit.h"
#include "autograd/matmul.h"
#include "kernels/gated_mlp.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/naive_lorentz.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Size {
  int64_t T, V, S, Hv, Hs;
};
// Around the blocks of tokens (32 for vectors, 128) and the segments (1024); then as AMX tiles take them: hidden
// channels in 32s, as in tag_slim, and the others anyhow.
const std::vector<Size> sizes = {{0, 3, 5, 2, 4}, {1, 1, 1, 1, 1},    {33, 4, 7, 5, 6},     {129, 2, 8, 3, 4},
                                 {2, 3, 4, 0, 0}, {1100, 2, 3, 2, 2}, {40, 32, 96, 64, 96}, {1100, 36, 41, 32, 64}};

/// v, s, up_v, down_v, up_s, up_bias, down_s, down_bias; of vectors only v if they have no weights.
std::vector<Array> inputs(Size n, bool vectors) {
  auto scale = [](int64_t k) { return 1 / std::sqrt(std::max<double>(1, k)); };
  std::vector<Array> x = {normal({n.T, 4, n.V}, 1), normal({n.T, n.S}, 2)};
  if (vectors) x.push_back(normal({3 * n.Hv, n.V}, 3, scale(n.V))), x.push_back(normal({n.V, n.Hv}, 4, scale(n.Hv)));
  x.push_back(normal({2 * n.Hs, n.S}, 5, scale(n.S))), x.push_back(normal({2 * n.Hs}, 6));
  x.push_back(normal({n.S, n.Hs}, 7, scale(n.Hs))), x.push_back(normal({n.S}, 8));
  return x;
}

GatedMlpWeights weights(const std::vector<Var>& x) {
  const bool vectors = x.size() == 8;
  const size_t at = vectors ? 4 : 2;
  return {vectors ? x[2] : Var{}, vectors ? x[3] : Var{}, x[at], x[at + 1], x[at + 2], x[at + 3]};
}

std::vector<Var> results(const LorentzVar& y) {
  return y.vectors.value().defined() ? std::vector{y.vectors, y.scalars} : std::vector{y.scalars};
}

/// One simple function after the other.
std::vector<Var> composite(const std::vector<Var>& x, Unary f) {
  const GatedMlpWeights w = weights(x);
  const LorentzVar n = lorentz_norm({x[0], x[1]}, 0.01);
  const Var s = linear_residual(gated_unit(linear(n.scalars, w.up_s, w.up_bias), f), w.down_s, w.down_bias, x[1]);
  if (x.size() < 8) return {s};
  return {linear_residual(gated_unit(linear(n.vectors, w.up_v, Var{}), f), w.down_v, Var{}, x[0]), s};
}

std::vector<Array> naive(const std::vector<Array>& x) {
  const size_t at = x.size() == 8 ? 4 : 2;
  const LorentzArray n = naive_lorentz_norm({x[0], x[1]}, 1, 0.01);
  auto plus = [](Array a, const Array& b) {
    for (int64_t i = 0; i < a.shape.numel(); ++i) a[i] += b[i];
    return a;
  };
  const Array hidden = naive_gated_scalars(naive_linear({n.s, x[at], x[at + 1]}), gelu);
  const Array s = plus(naive_linear({hidden, x[at + 2], x[at + 3]}), x[1]);
  if (x.size() < 8) return {s};
  return {plus(naive_linear({naive_gated_vectors(naive_linear({n.v, x[2]}), gelu), x[3]}), x[0]), s};
}

}  // namespace

// Where a vector crosses the light cone, the norm has a kink: few do within a step of 1e-8.
TEST_CASE("gated_mlp") {
  for (Size n : sizes)
    for (bool vectors : {true, false})
      for (bool amp : {false, true})
        check_op({.name = fmt::format("gated_mlp T {} V {} S {} {} {}", n.T, n.V, n.S, vectors, amp),
                  .inputs = inputs(n, vectors),
                  .op =
                      [=](auto& x) {
                        x[0].tape().set_amp(amp);
                        return results(gated_mlp({x[0], x[1]}, weights(x), 0.01, Unary::gelu));
                      },
                  .oracle = naive,
                  .dtypes = amp ? std::vector{DType::f32} : std::vector{DType::f64, DType::f32, DType::bf16},
                  // Gates multiply two sums, each with the error of one under amp.
                  .tolerance_factor = amp ? 2 * tolerance(DType::bf16) / tolerance(DType::f32) : 1,
                  .step = 1e-8});
}

TEST_CASE("gated_mlp is its parts, for every function") {
  for (Device device : devices())
    for (Unary f : {Unary::gelu, Unary::relu, Unary::silu, Unary::sigmoid, Unary::tanh})
      for (bool vectors : {true, false}) {
        std::vector<std::vector<Array>> both;
        for (bool fused : {true, false}) {
          Context ctx(device, 1);
          Tape tape(ctx);
          std::vector<Var> x;
          for (const Array& a : inputs({150, 5, 7, 9, 11}, vectors))
            x.push_back(tape.variable(to_tensor(ctx, a, DType::f64)));
          const auto y = fused ? results(gated_mlp({x[0], x[1]}, weights(x), 0.01, f)) : composite(x, f);
          std::vector<Tensor> cotangents;
          std::vector<Array> out;
          for (const Var& one : y) {
            out.push_back(to_array(one.value()));
            cotangents.push_back(to_tensor(ctx, normal(one.shape(), 9 + out.size()), DType::f64));
          }
          tape.backward(y, cotangents);
          for (const Var& one : x) out.push_back(to_array(tape.gradient(one)));
          both.push_back(out);
        }
        for (size_t i = 0; i < both[0].size(); ++i) {
          CAPTURE(i);
          CHECK(relative_error(both[0][i], both[1][i]) < 1e-13);
        }
      }
}

TEST_CASE("gated_mlp has the same bits for any number of threads, and a token's do not depend on the others") {
  const Size narrow{2300, 6, 10, 8, 12}, wide{2300, 32, 33, 32, 64};
  for (Device device : devices())
    for (auto [amp, size] : {std::pair(false, narrow), {true, narrow}, {false, wide}, {true, wide}}) {
      if (device != Device::cpu) size.T = 600;  // a simulated GPU is slow
      const std::vector<Array> arrays = inputs(size, true);
      std::vector<std::vector<Tensor>> all;
      for (int threads : {1, 2, 5}) {
        if (device != Device::cpu && threads > 1) continue;
        Context ctx(device, threads);
        Tape tape(ctx);
        tape.set_amp(amp);
        std::vector<Var> x;
        for (const Array& a : arrays) x.push_back(tape.variable(to_tensor(ctx, a, DType::f32)));
        const LorentzVar y = gated_mlp({x[0], x[1]}, weights(x), 0.01, Unary::gelu);
        all.push_back({y.vectors.value(), y.scalars.value()});
        for (int64_t count : {1, 15, 33, 450}) {
          Tape part(ctx, Tape::Mode::evaluate);
          part.set_amp(amp);
          std::vector<Var> few;
          for (const Var& one : x) few.push_back(part.constant(one.value()));
          for (int i : {0, 1}) few[i] = part.constant(few[i].value().narrow(100, count));
          const LorentzVar z = gated_mlp({few[0], few[1]}, weights(few), 0.01, Unary::gelu);
          CHECK(same_bits(z.vectors.value(), y.vectors.value().narrow(100, count)));
          CHECK(same_bits(z.scalars.value(), y.scalars.value().narrow(100, count)));
        }
        tape.backward({y.vectors, y.scalars}, {y.vectors.value(), y.scalars.value()});
        for (const Var& one : x) all.back().push_back(tape.gradient(one));
      }
      for (const auto& some : all)
        for (size_t i = 0; i < some.size(); ++i) CHECK(same_bits(some[i], all[0][i]));
    }
}

TEST_CASE("gated_mlp in place, with gradients that nobody wants, and what it refuses") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    ctx.allocator().set_guard(true);
    {
      std::vector<Tensor> x;
      for (const Array& a : inputs({140, 3, 4, 5, 6}, true)) x.push_back(to_tensor(ctx, a, DType::f32));
      const kernels::Weights up_v(x[2]), down_v(x[3]), up_s(x[4]), down_s(x[6]);
      const kernels::GatedWeights vectors{&up_v, &down_v, {}, {}}, scalars{&up_s, &down_s, x[5], x[7]}, none;
      auto like = [&](const Tensor& t) { return ctx.empty(t.shape(), t.dtype()); };
      Tensor yv = like(x[0]), ys = like(x[1]), undefined;
      auto run = [&](const kernels::GatedWeights& of_v, const Tensor& v, const Tensor& s, Tensor& yv, Tensor& ys) {
        kernels::gated_mlp(ctx, v, s, of_v, scalars, 0.01, Unary::gelu, yv, ys);
      };
      run(vectors, x[0], x[1], yv, ys);
      Tensor v = as(ctx, x[0], DType::f32), s = as(ctx, x[1], DType::f32);
      run(vectors, v, s, v, s);
      CHECK(same_bits(v, yv));
      CHECK(same_bits(s, ys));
      Tensor dv = like(v), ds = like(s), same_v = as(ctx, yv, DType::f32), same_s = as(ctx, ys, DType::f32),
             dup = like(x[2]);
      auto back = [&](const Tensor& dyv, const Tensor& dys, const kernels::GatedMlpGradients& g) {
        kernels::gated_mlp_backward(ctx, dyv, dys, x[0], x[1], vectors, scalars, 0.01, Unary::gelu, g);
      };
      back(yv, ys, {.dv = &dv, .ds = &ds, .up_v = &dup});
      back(same_v, same_s, {.dv = &same_v, .ds = &same_s});
      CHECK(same_bits(same_v, dv));
      CHECK(same_bits(same_s, ds));
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
      REFUSED("gated_mlp: yv is there, but no weights for vectors", run(none, x[0], x[1], yv, ys));
      REFUSED("gated_mlp: yv is not there", run(vectors, x[0], x[1], undefined, ys));
      REFUSED("gated_mlp: weights are missing, expected up and down, or neither for vectors",
              run({&up_v, nullptr, {}, {}}, x[0], x[1], yv, ys));
      REFUSED("gated_mlp: down_v has shape [3, 5], expected [4, 5]",
              run(vectors, ctx.zeros({140, 4, 4}, DType::f32), x[1], yv, ys));
      REFUSED("gated_mlp: s has 2 tokens, v has 140", run(vectors, x[0], ctx.zeros({2, 4}, DType::f32), yv, ys));
      REFUSED("gated_mlp: up_s is f32, expected f64",
              run(vectors, as(ctx, x[0], DType::f64), as(ctx, x[1], DType::f64), yv, ys));
      REFUSED("gated_mlp: f is none of gelu, relu, silu, sigmoid and tanh",
              kernels::gated_mlp(ctx, x[0], x[1], vectors, scalars, 0.01, Unary::exp, yv, ys));
      REFUSED("gated_mlp_backward: dv or ds is not there", back(yv, ys, {.dv = &dv}));
      REFUSED("gated_mlp_backward: dup_v has shape [4, 6], expected [15, 3]",
              back(yv, ys, {.dv = &dv, .ds = &ds, .up_v = &x[6]}));
#undef REFUSED
    }
    CHECK(ctx.allocator().guard_violations() == 0);
  }
}

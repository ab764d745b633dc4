#include <doctest/doctest.h>

#include <bit>
#include <cmath>

#include "autograd/matmul.h"
#include "kernels/mlp.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"
#include "tests/support/naive_linear.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

struct Size {
  int64_t T, K, H, N;
};
// Around the blocks of tokens (128) and the segments (1024) of the backward, and the tiles.
const std::vector<Size> sizes = {{0, 3, 5, 2},    {1, 1, 1, 1},      {5, 4, 0, 3},    {31, 7, 33, 7},
                                 {129, 8, 31, 5}, {257, 16, 24, 16}, {2100, 3, 5, 2}, {65, 64, 130, 70}};

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
                      Array hidden = naive_linear({v[0], v[1], v[2]});
                      for (double& e : hidden.values) e = gelu(e);
                      Array y = naive_linear({hidden, v[3], v[4]});
                      for (int64_t i = 0; i < y.shape.numel(); ++i) y[i] += v[5][i];
                      return std::vector{y};
                    },
                .dtypes = amp ? std::vector{DType::f32} : std::vector{DType::f64, DType::f32, DType::bf16},
                .tolerance_factor = amp ? tolerance(DType::bf16) / tolerance(DType::f32) : 1});
    }
}

TEST_CASE("mlp has the same bits for any number of threads, and a row's do not depend on the other rows") {
  for (Device device : devices())
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
        if (device != Device::cpu && threads > 1) continue;
        Context ctx(device, threads);
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

namespace {

/// x, residual and dy hold numbers of bf16; everything is of one dtype.
struct Operands {
  Tensor x, w1, b1, w2, b2, residual, dy;
  Operands(Context& ctx, Size n, DType dtype) {
    uint64_t seed = 0;
    auto of = [&](Shape shape, double scale = 1) { return to_tensor(ctx, normal(shape, ++seed, scale), dtype); };
    auto of_bf16 = [&](Shape shape) { return as(ctx, bf16_values(ctx, normal(shape, ++seed)), dtype); };
    x = of_bf16({n.T, n.K}), residual = of_bf16({n.T, n.N}), dy = of_bf16({n.T, n.N});
    w1 = of({n.H, n.K}, 0.5), b1 = of({n.H}), w2 = of({n.N, n.H}, 0.3), b2 = of({n.N});
  }
};

struct Forward {
  Tensor y, pre;
};
Forward forward(Context& ctx, const Operands& o, DType products, const Tensor& x, bool with_pre = true) {
  Forward f{.y = ctx.empty(o.residual.shape(), o.w1.dtype()), .pre = {}};
  if (with_pre) f.pre = ctx.empty({x.dim(0), o.w1.dim(0)}, o.w1.dtype());
  kernels::mlp(ctx, x, {o.w1, products}, o.b1, {o.w2, products}, o.b2, o.residual, f.pre, f.y);
  return f;
}

using Gradients = std::vector<Tensor>;  ///< dx, dw1, db1, dw2, db2
/// Those left out of `wanted` (one bit each) stay undefined.
Gradients backward(Context& ctx, const Operands& o, DType products, const Tensor& pre, const Tensor& x,
                   int wanted = 31) {
  Gradients g;
  for (const Tensor* like : {&x, &o.w1, &o.b1, &o.w2, &o.b2})
    g.push_back(wanted >> g.size() & 1 ? ctx.empty(like->shape(), like->dtype()) : Tensor());
  auto place = [&](int i) { return g[i].defined() ? &g[i] : nullptr; };
  kernels::mlp_backward(ctx, o.dy, pre, x, {o.w1, products}, o.b1, {o.w2, products},
                        {.dx = place(0), .dw1 = place(1), .db1 = place(2), .dw2 = place(3), .db2 = place(4)});
  return g;
}

/// On a GPU products whose operands or results have other dtypes, or no bias, may sum in another order; `close` allows
/// for that.
void check_same(const Tensor& got, const Tensor& expected, bool close = false) {
  if (close && got.device() != Device::cpu)
    CHECK(relative_error(to_array(got), to_array(expected)) < tolerance(got.dtype()));
  else
    CHECK(same_bits(got, expected));
}
void check_same(const Gradients& got, const Gradients& expected, bool close = false) {
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i].defined()) {
      CAPTURE(i);
      check_same(got[i], expected[i], close);
    }
}

/// f(ctx) on every device; on the CPU also without AMX tiles.
template <class F>
void on_devices(F&& f) {
  for (Device device : devices()) {
    CAPTURE(name_of(device));
    Context ctx(device, 1);
    ctx.allocator().set_guard(true);
    if (device == Device::cpu)
      with_and_without_amx([&](bool amx) {
        CAPTURE(amx);
        f(ctx);
      });
    else
      f(ctx);
    CHECK(ctx.allocator().guard_violations() == 0);
  }
}

}  // namespace

TEST_CASE("mlp of bf16 activations gives the bits of f32 ones with the same numbers, and dx rounded") {
  on_devices([&](Context& ctx) {
    for (Size n : sizes) {
      INFO("T ", n.T, " K ", n.K, " H ", n.H, " N ", n.N);
      const Operands o(ctx, n, DType::f32);
      const Tensor x = as(ctx, o.x, DType::bf16);
      const Forward exact = forward(ctx, o, DType::bf16, o.x), f = forward(ctx, o, DType::bf16, x);
      CHECK(same_bits(f.y, exact.y));
      CHECK(same_bits(f.pre, exact.pre));
      CHECK(same_bits(forward(ctx, o, DType::bf16, x, false).y, exact.y));
      Gradients expected = backward(ctx, o, DType::bf16, exact.pre, o.x);
      expected[0] = as(ctx, expected[0], DType::bf16);
      check_same(backward(ctx, o, DType::bf16, f.pre, x), expected, true);
      check_same(backward(ctx, o, DType::bf16, {}, x), expected, true);
    }
  });
}

TEST_CASE("mlp_backward: the same bits with and without pre, and for any gradients that nobody wants") {
  struct Kind {
    DType dtype, products, x;
  };
  on_devices([&](Context& ctx) {
    for (auto [dtype, products, in] : {Kind{DType::f64, DType::f64, DType::f64},
                                       {DType::f32, DType::f32, DType::f32},
                                       {DType::bf16, DType::bf16, DType::bf16},
                                       {DType::f32, DType::bf16, DType::f32},
                                       {DType::f32, DType::bf16, DType::bf16}})
      for (Size n : {sizes[0], sizes[2], sizes[4], sizes[6]}) {
        INFO(name_of(dtype), ", products ", name_of(products), ", x ", name_of(in), ", T ", n.T);
        const Operands o(ctx, n, dtype);
        const Tensor x = as(ctx, o.x, in);
        const Forward f = forward(ctx, o, products, x);
        CHECK(same_bits(forward(ctx, o, products, x, false).y, f.y));
        const Gradients all = backward(ctx, o, products, f.pre, x);
        for (int wanted = 0; wanted < 32; ++wanted) {
          if (ctx.device() != Device::cpu && std::popcount(unsigned(wanted)) != 1) continue;  // a simulated GPU is slow
          CAPTURE(wanted);
          check_same(backward(ctx, o, products, f.pre, x, wanted), all);
          check_same(backward(ctx, o, products, {}, x, wanted), all);
        }
      }
  });
}

TEST_CASE("mlp without biases, and y in the place of the residual") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    Operands o(ctx, {40, 16, 24, 16}, DType::f32);
    const Tensor x = as(ctx, o.x, DType::bf16);
    o.b1 = ctx.zeros({24}, DType::f32), o.b2 = ctx.zeros({16}, DType::f32);
    const Forward zeros = forward(ctx, o, DType::bf16, x);
    const Gradients expected = backward(ctx, o, DType::bf16, {}, x);
    Tensor y = as(ctx, o.residual, DType::f32), none;
    kernels::mlp(ctx, x, {o.w1, DType::bf16}, {}, {o.w2, DType::bf16}, {}, y, none, y);
    check_same(y, zeros.y, true);
    Tensor dx = ctx.empty(x.shape(), DType::bf16);
    kernels::mlp_backward(ctx, o.dy, {}, x, {o.w1, DType::bf16}, {}, {o.w2, DType::bf16}, {.dx = &dx});
    check_same(dx, expected[0], true);
  }
}

TEST_CASE("mlp of rows without columns: what goes into GELU is the bias") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    ctx.allocator().set_guard(true);
    const Operands o(ctx, {5, 0, 3, 0}, DType::f32);
    const Array pre = to_array(forward(ctx, o, DType::f32, o.x).pre), b1 = to_array(o.b1);
    for (int64_t i = 0; i < 15; ++i) CHECK(pre[i] == b1[i % 3]);
  }
}

TEST_CASE("mlp of bf16 activations has the same bits for any number of threads") {
  with_and_without_amx([&](bool) {
    Context one(1);
    const Operands o(one, {2300, 24, 40, 24}, DType::f32);
    const Tensor x = as(one, o.x, DType::bf16);
    const Forward f = forward(one, o, DType::bf16, x);
    const Gradients g = backward(one, o, DType::bf16, {}, x);
    for (int threads : {2, 3}) {
      Context ctx(threads);
      CHECK(same_bits(forward(ctx, o, DType::bf16, x).y, f.y));
      check_same(backward(ctx, o, DType::bf16, {}, x), g);
    }
  });
}

TEST_CASE("under amp mlp takes bf16, and its gradient is bf16") {
  for (Device device : devices()) {
    Context ctx(device, 1);
    const Operands o(ctx, {40, 16, 24, 16}, DType::f32);
    Tape tape(ctx);
    tape.set_amp(true);
    auto variable = [&](const Tensor& t) { return tape.variable(t); };
    const Var x = variable(as(ctx, o.x, DType::bf16)), w1 = variable(o.w1), b1 = variable(o.b1), w2 = variable(o.w2),
              b2 = variable(o.b2), residual = variable(o.residual);
    const Var y = mlp(x, w1, b1, w2, b2, residual);
    CHECK(same_bits(y.value(), forward(ctx, o, DType::bf16, x.value()).y));
    tape.backward(y, o.dy);
    const Gradients got = {tape.gradient(x), tape.gradient(w1), tape.gradient(b1), tape.gradient(w2),
                           tape.gradient(b2)};
    check_same(got, backward(ctx, o, DType::bf16, {}, x.value()));
    CHECK(same_bits(tape.gradient(residual), o.dy));
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
  // Of another dtype than the products allow.
  auto zeros = [&](Shape shape, DType dtype) { return ctx.zeros(shape, dtype); };
  const kernels::Weights w1(zeros({8, 3}, DType::f32)), w2(zeros({3, 8}, DType::f32)),
      amp1(zeros({8, 3}, DType::f32), DType::bf16), amp2(zeros({3, 8}, DType::f32), DType::bf16);
  Tensor y = zeros({4, 3}, DType::f32), small = zeros({4, 3}, DType::bf16), none;
  auto call = [&](const Tensor& x, const kernels::Weights& up, const kernels::Weights& down, const Tensor& residual,
                  Tensor pre, Tensor& out) { kernels::mlp(ctx, x, up, {}, down, {}, residual, pre, out); };
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
  REFUSED("mlp: x is bf16, expected f32", call(small, w1, w2, y, none, y));
  REFUSED("mlp: x is f64, expected f32 or bf16", call(zeros({4, 3}, DType::f64), amp1, amp2, y, none, y));
  REFUSED("mlp: y is bf16, expected f32", call(small, amp1, amp2, small, none, small));
  REFUSED("mlp: residual is bf16, expected f32", call(small, amp1, amp2, small, none, y));
  REFUSED("mlp: pre is bf16, expected f32", call(small, amp1, amp2, y, zeros({4, 8}, DType::bf16), y));
  REFUSED("mlp: w1 multiplies in bf16, w2 in f32; expected the same", call(small, amp1, w2, y, none, y));
  REFUSED("mlp: w2 is bf16, expected f32", call(y, w1, {zeros({3, 8}, DType::bf16)}, y, none, y));
  auto back = [&](const Tensor& dy, const Tensor& pre, const kernels::MlpGradients& g) {
    kernels::mlp_backward(ctx, dy, pre, small, amp1, {}, amp2, g);
  };
  Tensor dw1 = zeros({8, 3}, DType::bf16);
  REFUSED("mlp_backward: dy is bf16, expected f32", back(small, none, {}));
  REFUSED("mlp_backward: dx is f32, expected bf16", back(y, none, {.dx = &y}));
  REFUSED("mlp_backward: dw1 is bf16, expected f32", back(y, none, {.dw1 = &dw1}));
  REFUSED("mlp_backward: pre has shape [4, 7], expected [4, 8]", back(y, zeros({4, 7}, DType::f32), {}));
#undef REFUSED
}

// bf16 products of f32 weights: activations of either dtype, in and out, give the bits that f32 activations with the
// same numbers give, rounded where the result is bf16.
#include <doctest/doctest.h>

#include "autograd/matmul.h"
#include "kernels/matmul.h"
#include "tests/support/amp.h"
#include "tests/support/devices.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

constexpr DType dtypes[] = {DType::f32, DType::bf16};
constexpr const char* maps[] = {"linear", "linear_gelu", "linear_residual"};

struct Size {
  int64_t T, N, K;
};
// Around the tiles (16 and 32), the columns of a thread (64) and the rows of a block (128); sums over nothing.
template <class F>
void at_edges(F&& f) {
  for (int64_t T : {0, 1, 31, 33, 129})
    for (int64_t N : {1, 7, 33, 64, 130})
      for (int64_t K : {0, 1, 5, 33}) {
        CAPTURE(T);
        CAPTURE(N);
        CAPTURE(K);
        f(Size{T, N, K});
      }
}

/// x, residual and dy hold numbers of bf16; all are f32.
struct Operands {
  Tensor x, w, b, residual, dy;
  Operands(Context& ctx, Size n)
      : x(bf16_values(ctx, normal({n.T, n.K}, 1))),
        w(to_tensor(ctx, normal({n.N, n.K}, 2), DType::f32)),
        b(to_tensor(ctx, normal({n.N}, 3), DType::f32)),
        residual(bf16_values(ctx, normal({n.T, n.N}, 4))),
        dy(bf16_values(ctx, normal({n.T, n.N}, 5))) {}
};

struct Results {
  Tensor y, pre;
};
/// One of `maps`, with y (and pre, residual) of dtype `out`.
Results forward(Context& ctx, const std::string& map, const Operands& o, const Tensor& x, DType out) {
  const kernels::Weights w(o.w, DType::bf16);
  Results r{.y = ctx.empty({x.dim(0), o.w.dim(0)}, out), .pre = {}};
  if (map == "linear") {
    kernels::linear(ctx, x, w, o.b, r.y);
  } else if (map == "linear_residual") {
    kernels::linear_residual(ctx, x, w, o.b, as(ctx, o.residual.narrow(0, x.dim(0)), out), r.y);
  } else {
    r.pre = ctx.empty(r.y.shape(), out);
    kernels::linear_gelu(ctx, x, w, o.b, r.pre, r.y);
  }
  return r;
}

Tensor gelu(Context& ctx, const Tensor& x) {
  Tensor y = ctx.empty(x.shape(), x.dtype());
  kernels::unary(ctx, kernels::Unary::gelu, x, y);
  return y;
}

struct Gradients {
  Tensor dx, dw, db;
};
/// With `pre` through GELU. Those left out of `wanted` (bits: dx, dw, db) stay undefined.
Gradients backward(Context& ctx, const Operands& o, const Tensor& dy, const Tensor* pre, const Tensor& x,
                   int wanted = 7) {
  const kernels::Weights w(o.w, DType::bf16);
  Gradients g;
  auto want = [&](int bit, Tensor& t, const Tensor& like) -> Tensor* {
    if (!(wanted & bit)) return nullptr;
    t = ctx.empty(like.shape(), like.dtype());
    return &t;
  };
  Tensor *dx = want(1, g.dx, x), *dw = want(2, g.dw, o.w), *db = want(4, g.db, o.b);
  if (pre)
    kernels::linear_gelu_backward(ctx, dy, *pre, x, w, dx, dw, db);
  else
    kernels::linear_backward(ctx, dy, x, w, dx, dw, db);
  return g;
}

}  // namespace

TEST_CASE("bf16 activations: a result is that of f32, rounded") {
  Context ctx(1);
  ctx.allocator().set_guard(true);
  with_and_without_amx([&](bool amx) {
    CAPTURE(amx);
    at_edges([&](Size n) {
      const Operands o(ctx, n);
      for (const char* map : maps) {
        const Results exact = forward(ctx, map, o, o.x, DType::f32);
        for (DType in : dtypes)
          for (DType out : dtypes) {
            INFO(map, " from ", name_of(in), " to ", name_of(out));
            const Results r = forward(ctx, map, o, as(ctx, o.x, in), out);
            if (exact.pre.defined()) {
              // GELU is that of the rounded argument, which the backward reads.
              CHECK(same_bits(r.pre, as(ctx, exact.pre, out)));
              CHECK(same_bits(r.y, gelu(ctx, r.pre)));
              Tensor y = ctx.empty(r.y.shape(), out), none;
              kernels::linear_gelu(ctx, as(ctx, o.x, in), {o.w, DType::bf16}, o.b, none, y);
              CHECK(same_bits(y, r.y));
            } else {
              CHECK(same_bits(r.y, as(ctx, exact.y, out)));
            }
          }
      }
    });
  });
  CHECK(ctx.allocator().guard_violations() == 0);
}

// The sums' order is the device's own, so that a rounding may fall the other way.
TEST_CASE("bf16 activations: every device agrees with the CPU") {
  Context cpu(1);
  for (Device device : devices())
    for (Size n : {Size{0, 7, 5}, {1, 1, 1}, {33, 7, 5}, {31, 64, 33}, {129, 40, 16}, {5, 3, 0}, {5, 0, 3}})
      for (DType in : dtypes)
        for (DType out : dtypes) {
          INFO(name_of(device), " T ", n.T, " N ", n.N, " K ", n.K, " from ", name_of(in), " to ", name_of(out));
          Context ctx(device, 1);
          ctx.allocator().set_guard(true);
          const Operands o(ctx, n), there(cpu, n);
          auto close = [&](const Tensor& a, const Tensor& b) {
            CHECK(relative_error(to_array(a), to_array(b)) <= tolerance(a.dtype()));
          };
          for (const char* map : maps) {
            INFO(map);
            const Results r = forward(ctx, map, o, as(ctx, o.x, in), out);
            const Results expected = forward(cpu, map, there, as(cpu, there.x, in), out);
            close(r.y, expected.y);
            if (r.pre.defined()) close(r.pre, expected.pre);
          }
          const Tensor pre = as(ctx, o.residual, out), pre_there = as(cpu, there.residual, out);
          for (bool gelu : {false, true}) {
            const Gradients g = backward(ctx, o, as(ctx, o.dy, out), gelu ? &pre : nullptr, as(ctx, o.x, in));
            const Gradients expected =
                backward(cpu, there, as(cpu, there.dy, out), gelu ? &pre_there : nullptr, as(cpu, there.x, in));
            close(g.dx, expected.dx);
            // gelu'(pre) dy is rounded to bf16 before the product: a rounding that falls the other way weighs more
            // than in f32's row of the table.
            CHECK(relative_error(to_array(g.dw), to_array(expected.dw)) <= tolerance(gelu ? DType::bf16 : DType::f32));
            CHECK(relative_error(to_array(g.db), to_array(expected.db)) <= tolerance(gelu ? out : DType::f32));
          }
        }
}

TEST_CASE("bf16 activations: no bias, y in the place of the residual, x that is rounded on the way") {
  Context ctx(1);
  with_and_without_amx([&](bool) {
    at_edges([&](Size n) {
      const Operands o(ctx, n);
      const kernels::Weights w(o.w, DType::bf16);
      const Tensor x = to_tensor(ctx, normal({n.T, n.K}, 1), DType::f32);  // o.x before it was rounded
      for (DType out : dtypes) {
        Tensor y = ctx.empty({n.T, n.N}, out), same = ctx.empty({n.T, n.N}, out);
        kernels::linear(ctx, x, w, {}, y);
        kernels::linear(ctx, as(ctx, o.x, DType::bf16), w, ctx.zeros({n.N}, DType::f32), same);
        CHECK(relative_error(to_array(y), to_array(same)) == 0);  // but for the sign of 0
        Tensor residual = as(ctx, o.residual, out);
        kernels::linear_residual(ctx, as(ctx, o.x, DType::bf16), w, o.b, residual, residual);
        CHECK(same_bits(residual, forward(ctx, "linear_residual", o, x, out).y));
      }
    });
  });
}

TEST_CASE("bf16 activations: infinities and NaN come through, and what bf16 cannot hold is infinite") {
  Context ctx(1);
  constexpr float inf = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  const float values[] = {inf, -inf, std::numeric_limits<float>::quiet_NaN(), largest, -largest, 0x1p127f, 1, -0.f};
  with_and_without_amx([&](bool amx) {
    CAPTURE(amx);
    for (int64_t N : {1, 16, 40}) {
      const Operands o(ctx, {40, N, 1});
      Tensor x = ctx.empty({40, 1}, DType::f32), w = ctx.empty({N, 1}, DType::f32);
      for (int64_t i = 0; i < 40; ++i) x.data<float>()[i] = values[i % 8];
      for (int64_t i = 0; i < N; ++i) w.data<float>()[i] = i % 2 ? 2 : 1;
      Tensor exact = ctx.empty({40, N}, DType::f32), y = ctx.empty({40, N}, DType::bf16);
      kernels::linear(ctx, x, {w, DType::bf16}, o.b, exact);
      kernels::linear(ctx, as(ctx, x, DType::bf16), {w, DType::bf16}, o.b, y);
      for (int64_t i = 0; i < 40 * N; ++i) {
        const float expected = float(bf16(exact.data<float>()[i])), got = float(y.data<bf16>()[i]);
        CHECK((got == expected || (std::isnan(got) && std::isnan(expected))));
      }
      CHECK(std::isinf(float(y.data<bf16>()[3 * N])));
      CHECK(std::isnan(float(y.data<bf16>()[2 * N])));
    }
  });
}

TEST_CASE("bf16 activations: gradients are those of f32 activations, dx rounded") {
  Context ctx(1);
  ctx.allocator().set_guard(true);
  with_and_without_amx([&](bool amx) {
    CAPTURE(amx);
    auto check = [&](Size n) {
      const Operands o(ctx, n);
      const Gradients exact = backward(ctx, o, o.dy, nullptr, o.x);
      for (DType in : dtypes)
        for (DType out : dtypes) {
          INFO("x ", name_of(in), ", dy ", name_of(out));
          const Tensor x = as(ctx, o.x, in), dy = as(ctx, o.dy, out), pre = as(ctx, o.residual, out);
          const Gradients g = backward(ctx, o, dy, nullptr, x);
          CHECK(same_bits(g.dx, as(ctx, exact.dx, in)));
          CHECK(same_bits(g.dw, exact.dw));
          CHECK(same_bits(g.db, exact.db));
          // Through GELU: the same with gelu'(pre) dy, a tensor of dy's dtype.
          Tensor through = ctx.empty(dy.shape(), out);
          kernels::unary_backward(ctx, kernels::Unary::gelu, dy, pre, through);
          const Gradients expected = backward(ctx, o, through, nullptr, x), gelu = backward(ctx, o, dy, &pre, x);
          CHECK(same_bits(gelu.dx, expected.dx));
          CHECK(same_bits(gelu.dw, expected.dw));
          CHECK(same_bits(gelu.db, expected.db));
        }
    };
    at_edges(check);
    check({2100, 7, 5});  // three segments of tokens
  });
  CHECK(ctx.allocator().guard_violations() == 0);
}

TEST_CASE("bf16 activations: a gradient does not depend on which others are wanted") {
  Context ctx(1);
  const Operands o(ctx, {1100, 33, 20});
  const Tensor x = as(ctx, o.x, DType::bf16), dy = as(ctx, o.dy, DType::bf16), pre = as(ctx, o.residual, DType::bf16);
  for (const Tensor* through : {static_cast<const Tensor*>(nullptr), &pre}) {
    const Gradients all = backward(ctx, o, dy, through, x);
    for (int wanted = 0; wanted < 7; ++wanted) {
      CAPTURE(wanted);
      const Gradients some = backward(ctx, o, dy, through, x, wanted);
      if (wanted & 1) CHECK(same_bits(some.dx, all.dx));
      if (wanted & 2) CHECK(same_bits(some.dw, all.dw));
      if (wanted & 4) CHECK(same_bits(some.db, all.db));
    }
  }
}

TEST_CASE("bf16 activations: the same bits for any number of threads, and for a row among any others") {
  with_and_without_amx([&](bool amx) {
    CAPTURE(amx);
    // Both large enough to be shared: by rows, and by columns.
    for (Size n : {Size{600, 200, 80}, {200, 330, 130}}) {
      Context one(1);
      const Operands o(one, n);
      const Tensor x = as(one, o.x, DType::bf16), dy = as(one, o.dy, DType::bf16);
      const Gradients g = backward(one, o, dy, nullptr, x);
      for (const char* map : maps)
        for (DType out : dtypes) {
          INFO(map, " to ", name_of(out));
          const Tensor y = forward(one, map, o, x, out).y;
          for (int threads : {2, 3}) {
            Context ctx(threads);
            CHECK(same_bits(forward(ctx, map, o, x, out).y, y));
          }
          for (int64_t count : {1, 33, 150})
            CHECK(same_bits(forward(one, map, o, x.narrow(0, count), out).y, y.narrow(0, count)));
        }
      for (int threads : {2, 3}) {
        Context ctx(threads);
        const Gradients again = backward(ctx, o, dy, nullptr, x);
        CHECK(same_bits(again.dx, g.dx));
        CHECK(same_bits(again.dw, g.dw));
        CHECK(same_bits(again.db, g.db));
      }
    }
  });
}

TEST_CASE("under amp a linear map takes and gives bf16, and gradients have the dtypes of what they belong to") {
  Context ctx(1);
  const Operands o(ctx, {40, 33, 20});
  Tape tape(ctx);
  tape.set_amp(true);
  CHECK(tape.factors(DType::f32) == DType::bf16);
  CHECK(tape.factors(DType::f64) == DType::f64);
  CHECK(tape.factors(DType::bf16) == DType::bf16);
  const Var x = tape.variable(as(ctx, o.x, DType::bf16)), w = tape.variable(o.w), b = tape.variable(o.b);
  const Var y = linear(x, w, b, tape.factors(w.dtype()));
  REQUIRE(y.dtype() == DType::bf16);
  CHECK(linear(x, w, b).dtype() == DType::f32);
  CHECK(same_bits(y.value(), forward(ctx, "linear", o, x.value(), DType::bf16).y));
  const Tensor dy = as(ctx, o.dy, DType::bf16);
  tape.backward(y, dy);
  const Gradients g = backward(ctx, o, dy, nullptr, x.value());
  CHECK(same_bits(tape.gradient(x), g.dx));
  CHECK(same_bits(tape.gradient(w), g.dw));
  CHECK(same_bits(tape.gradient(b), g.db));
  tape.set_amp(false);
  CHECK(tape.factors(DType::f32) == DType::f32);
}

TEST_CASE("products refuse activations of a dtype that is not theirs") {
  Context ctx(1);
  auto of = [&](Shape shape, DType dtype) { return ctx.zeros(shape, dtype); };
  const kernels::Weights amp(of({5, 3}, DType::f32), DType::bf16), exact(of({5, 3}, DType::f32)),
      small(of({5, 3}, DType::bf16));
  auto call = [&](const kernels::Weights& w, DType x, DType y) {
    Tensor out = of({4, 5}, y);
    kernels::linear(ctx, of({4, 3}, x), w, {}, out);
  };
#define REFUSED(message, ...) CHECK_THROWS_WITH_AS(__VA_ARGS__, message, Error)
  REFUSED("linear: x is bf16, expected f32", call(exact, DType::bf16, DType::f32));
  REFUSED("linear: y is bf16, expected f32", call(exact, DType::f32, DType::bf16));
  REFUSED("linear: x is f64, expected f32 or bf16", call(amp, DType::f64, DType::f32));
  REFUSED("linear: y is f64, expected f32 or bf16", call(amp, DType::bf16, DType::f64));
  REFUSED("linear: y is f16, expected f32 or bf16", call(amp, DType::bf16, DType::f16));
  REFUSED("linear: x is f32, expected bf16", call(small, DType::f32, DType::bf16));
  REFUSED("linear: y is f32, expected bf16", call(small, DType::bf16, DType::f32));
  REFUSED("linear: products of f64 tensors in bf16; expected f64",
          call({of({5, 3}, DType::f64), DType::bf16}, DType::f64, DType::f64));
  REFUSED("linear: products of bf16 tensors in f32; expected bf16",
          call({of({5, 3}, DType::bf16), DType::f32}, DType::bf16, DType::bf16));
  REFUSED("linear: products of f32 tensors in f64; expected f32 or bf16",
          call({of({5, 3}, DType::f32), DType::f64}, DType::f32, DType::f32));
  Tensor y = of({4, 5}, DType::bf16), pre = of({4, 5}, DType::f32);
  const Tensor x = of({4, 3}, DType::bf16);
  REFUSED("linear: b is bf16, expected f32", kernels::linear(ctx, x, amp, of({5}, DType::bf16), y));
  REFUSED("linear_gelu: pre is f32, expected bf16", kernels::linear_gelu(ctx, x, amp, {}, pre, y));
  REFUSED("linear_residual: residual is f32, expected bf16", kernels::linear_residual(ctx, x, amp, {}, pre, y));
  Tensor dx = of({4, 3}, DType::f32), dw = of({5, 3}, DType::bf16), db = of({5}, DType::bf16);
  REFUSED("linear_backward: dx is f32, expected bf16", kernels::linear_backward(ctx, y, x, amp, &dx, nullptr, nullptr));
  REFUSED("linear_backward: dw is bf16, expected f32", kernels::linear_backward(ctx, y, x, amp, nullptr, &dw, nullptr));
  REFUSED("linear_backward: db is bf16, expected f32", kernels::linear_backward(ctx, y, x, amp, nullptr, nullptr, &db));
  REFUSED("linear_backward: dy is f64, expected f32 or bf16",
          kernels::linear_backward(ctx, of({4, 5}, DType::f64), x, amp, nullptr, nullptr, nullptr));
  REFUSED("linear_backward: dy is bf16, expected f32",
          kernels::linear_backward(ctx, y, of({4, 3}, DType::f32), exact, nullptr, nullptr, nullptr));
  REFUSED("linear_gelu_backward: pre is f32, expected bf16",
          kernels::linear_gelu_backward(ctx, y, pre, x, amp, nullptr, nullptr, nullptr));
  // A result in bf16 is for products in bf16.
  Tape tape(ctx);
  auto constant = [&](Shape shape) { return tape.constant(of(shape, DType::f32)); };
  REFUSED("linear: y is bf16, expected f32", linear(constant({4, 3}), constant({5, 3}), {}, DType::bf16));
  REFUSED("linear: y is f64, expected f32", linear(constant({4, 3}), constant({5, 3}), {}, DType::f64));
#undef REFUSED
}

#include <doctest/doctest.h>

#include "autograd/checkpoint.h"
#include "autograd/elementwise.h"
#include "autograd/module.h"
#include "autograd/norm.h"
#include "autograd/random.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("tape: gradients of a value used several times add up") {
  Context ctx(1);
  Tape tape(ctx);
  const Var x = tape.variable(to_tensor(ctx, {{3}, {1, 2, 3}}, DType::f64));
  const Var y = add(multiply(x, x), add(x, x));  // x^2 + 2x
  tape.backward(y, to_tensor(ctx, {{3}, {1, 10, 100}}, DType::f64));
  CHECK(to_array(tape.gradient(x)).values == std::vector<double>{4, 60, 800});
}

TEST_CASE("tape: a gradient that is passed on is not changed by a later sum") {
  // add() hands the same tensor to both operands; the second use of a must not spill into b's gradient.
  Context ctx(1);
  Tape tape(ctx);
  const Var a = tape.variable(to_tensor(ctx, {{1}, {2}}, DType::f64)),
            b = tape.variable(to_tensor(ctx, {{1}, {3}}, DType::f64));
  const Var y = add(scale(a, 5), add(a, b));
  tape.backward(y);
  CHECK(tape.gradient(a).item() == 6);
  CHECK(tape.gradient(b).item() == 1);
}

TEST_CASE("tape: nothing is recorded without need") {
  Context ctx(1);
  Tape evaluate(ctx, Tape::Mode::evaluate);
  const Tensor t = to_tensor(ctx, normal({4, 8}, 1), DType::f32);
  CHECK(!layer_norm(evaluate.variable(t)).wants_grad());
  CHECK(evaluate.nodes() == 0);
  Tape train(ctx);
  CHECK(!layer_norm(train.constant(t)).wants_grad());
  CHECK(train.nodes() == 0);
  CHECK_THROWS_WITH_AS(train.backward(train.constant(ctx.zeros({1}, DType::f32))),
                       "backward: the result depends on nothing that wants a gradient", Error);
  const Var x = train.variable(t);
  CHECK_THROWS_WITH_AS(train.backward(x), "backward: a cotangent is needed for a result of shape [4, 8]", Error);
}

TEST_CASE("tape: memory of a step is freed as the backward pass goes, and nothing leaks") {
  Context ctx(1);
  const int64_t before = ctx.allocator().statistics().in_use;
  {
    Tape tape(ctx);
    Var h = tape.variable(to_tensor(ctx, normal({64, 64}, 1), DType::f32));
    const Var x = h;
    for (int i = 0; i < 20; ++i) h = layer_norm(h);
    const int64_t forward = ctx.allocator().statistics().in_use;
    ctx.allocator().reset_peak();
    tape.backward(h, to_tensor(ctx, normal({64, 64}, 2), DType::f32));
    CHECK(ctx.allocator().statistics().peak < forward + 5 * 64 * 64 * 4);
  }
  CHECK(ctx.allocator().statistics().in_use == before);
}

TEST_CASE("tape: parameters collect their gradient, and keep it until it is cleared") {
  Context ctx(1);
  Parameter p;
  p.value = to_tensor(ctx, {{2}, {3, 4}}, DType::f64);
  for (int pass = 1; pass <= 2; ++pass) {
    Tape tape(ctx);
    tape.backward(multiply(tape.parameter(p), tape.parameter(p)), to_tensor(ctx, {{2}, {1, 1}}, DType::f64));
    CHECK(to_array(p.grad).values == std::vector<double>{6. * pass, 8. * pass});
  }
  p.trainable = false;
  Tape tape(ctx);
  CHECK(!tape.parameter(p).wants_grad());
}

TEST_CASE("checkpoint: same value, gradients and random numbers, in less memory") {
  auto run = [](bool recompute, int64_t& held) {
    Context ctx(1, 7);
    Parameter p;
    p.value = to_tensor(ctx, normal({33, 16}, 3), DType::f32);
    Tape tape(ctx);
    const Var x = tape.variable(to_tensor(ctx, normal({33, 16}, 1), DType::f32));
    auto f = [&](const Var& in) {
      Var h = in;
      for (int i = 0; i < 6; ++i) h = dropout(multiply(layer_norm(h), in.tape().parameter(p)), 0.25);
      return h;
    };
    Var y = recompute ? checkpoint(x, f) : f(x);
    y = dropout(y, 0.5);
    held = ctx.allocator().statistics().in_use;
    tape.backward(y, to_tensor(ctx, normal({33, 16}, 2), DType::f32));
    return std::vector{to_array(y.value()).values, to_array(tape.gradient(x)).values, to_array(p.grad).values};
  };
  int64_t kept = 0, recomputed = 0;
  CHECK(run(false, kept) == run(true, recomputed));
  CHECK(recomputed < kept / 2);
}

TEST_CASE("module: names, state dict and row order") {
  struct Child : Module {
    Parameter weight;
    Buffer flag;
    explicit Child(Context& ctx) {
      weight.value = to_tensor(ctx, {{3, 2}, {0, 1, 2, 3, 4, 5}}, DType::f64);
      weight.rows = {2, 0, 1};
      flag.value = to_tensor(ctx, {{1}, {1}}, DType::boolean);
      add("weight", weight);
      add("flag", flag);
    }
  };
  struct Parent : Module {
    Child a;
    explicit Parent(Context& ctx) : a(ctx) { add("a", a); }
  };
  Context ctx(1);
  Parent net(ctx);
  const auto state = net.state_dict(ctx);
  REQUIRE(state.size() == 2);
  CHECK(state[0].first == "a.weight");
  CHECK(to_array(state[0].second).values == std::vector<double>{4, 5, 0, 1, 2, 3});
  CHECK(state[1].first == "a.flag");
  CHECK(net.num_parameters() == 6);
  auto get = [&](const std::string& name) { return name == "a.weight" ? state[0].second : state[1].second; };
  net.a.weight.value = ctx.zeros({3, 2}, DType::f64);
  net.load_state_dict(ctx, get);
  CHECK(to_array(net.a.weight.value).values == std::vector<double>{0, 1, 2, 3, 4, 5});
  CHECK_THROWS_WITH_AS(net.load_state_dict(ctx, [](const std::string&) { return Tensor(); }),
                       "load_state_dict: a.weight is missing", Error);
  CHECK_THROWS_WITH_AS(net.load_state_dict(ctx,
                                           [&](const std::string&) {
                                             return ctx.zeros({2, 2}, DType::f64);
                                           }),
                       "load_state_dict: a.weight has shape [2, 2], this network's is [3, 2]", Error);
}

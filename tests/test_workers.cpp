#include <doctest/doctest.h>

#include <atomic>

#include "autograd/elementwise.h"
#include "autograd/matmul.h"
#include "autograd/module.h"
#include "autograd/random.h"
#include "autograd/reduce.h"
#include "experiments/batch_gradient.h"
#include "tests/support/op_case.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("workers: every part once, results in order, each thread with a context of its own") {
  for (int threads : {1, 2, 5}) {
    Context main(threads);
    Workers workers(main);
    std::vector<int64_t> taken;
    std::atomic<int> on_main = 0;
    workers.run(
        37,
        [&](Context& own, int64_t part) {
          on_main += &own == &main;
          CHECK(own.threads() == 1);
          return part * part;
        },
        [&](int64_t part, int64_t square) {
          CHECK(square == part * part);
          taken.push_back(part);
        });
    REQUIRE(taken.size() == 37);
    for (int64_t i = 0; i < 37; ++i) CHECK(taken[i] == i);
    CHECK(on_main == 0);
    // A single part has all threads.
    workers.run(
        1, [&](Context& own, int64_t) { return &own == &main; }, [](int64_t, bool is) { CHECK(is); });
    workers.run(
        0, [&](Context&, int64_t) { return 0; }, [](int64_t, int) { CHECK(false); });
  }
}

TEST_CASE("workers: the first failure is rethrown, and nothing after it is taken") {
  for (int threads : {1, 3}) {
    Context main(threads);
    Workers workers(main);
    int64_t taken = 0;
    auto work = [](Context&, int64_t part) {
      if (part == 11 || part == 5) throw Error(fmt::format("part {}", part));
      return part;
    };
    CHECK_THROWS_WITH_AS(workers.run(20, work, [&](int64_t, int64_t) { ++taken; }), "part 5", Error);
    CHECK(taken == 5);
    auto take = [](int64_t part, int64_t) {
      if (part == 3) throw Error("taken 3");
    };
    CHECK_THROWS_WITH_AS(workers.run(20, work, take), "taken 3", Error);
    // They can be used again.
    taken = 0;
    workers.run(4, work, [&](int64_t, int64_t) { ++taken; });
    CHECK(taken == 4);
  }
}

namespace {
struct Net : Module {
  Parameter w, unused;
  explicit Net(Context& ctx) {
    w.value = to_tensor(ctx, normal({6, 8}, 1), DType::f32);
    unused.value = to_tensor(ctx, normal({3}, 2), DType::f32);
    add("w", w);
    add("unused", unused);
  }
  // With dropout, so that the parts' random streams show.
  Var loss(Tape& tape, int64_t part) {
    Context& ctx = tape.context();
    const Var x = tape.constant(to_tensor(ctx, normal({50 + part, 8}, 10 + static_cast<int>(part)), DType::f32));
    const Var y = dropout(linear(x, tape.parameter(w), Var{}), 0.3);
    return sum(multiply(y, y), Over::all);
  }
};
}  // namespace

TEST_CASE("the gradient of a batch has the same bits for any number of threads") {
  std::vector<double> losses;
  std::vector<Array> gradients;
  for (int threads : {1, 2, 3, 7}) {
    Context ctx(threads, 5);
    Workers workers(ctx);
    Net net(ctx);
    for (int step = 0; step < 2; ++step) {
      net.zero_grad();
      losses.push_back(
          batch_gradient(workers, 9, [&](Tape& tape, int64_t part) { return net.loss(tape, part); }).get().loss);
      gradients.push_back(to_array(net.w.grad));
      CHECK(!net.unused.grad.defined());
    }
  }
  for (size_t i = 2; i < losses.size(); ++i) {
    CHECK(losses[i] == losses[i % 2]);
    CHECK(gradients[i].values == gradients[i % 2].values);
  }
  // Another step, other random numbers.
  CHECK(losses[0] != losses[1]);
}

TEST_CASE("the parts' gradients add up to that of the whole") {
  Context ctx(2, 5);
  Workers workers(ctx);
  Net net(ctx);
  auto loss = [&](Tape& tape, int64_t part) {
    const Var x = tape.constant(to_tensor(tape.context(), normal({20, 8}, static_cast<int>(part)), DType::f32));
    const Var y = linear(x, tape.parameter(net.w), Var{});
    return sum(multiply(y, y), Over::all);
  };
  const double by_parts = batch_gradient(workers, 4, loss).get().loss;
  const Array gradient = to_array(net.w.grad);
  net.zero_grad();
  double whole = 0;
  for (int64_t part = 0; part < 4; ++part) {
    Tape tape(ctx);
    const Var l = loss(tape, part);
    whole += l.value().item();
    tape.backward(l);
  }
  CHECK(by_parts == doctest::Approx(whole).epsilon(1e-6));
  CHECK(relative_error(gradient, to_array(net.w.grad)) < 1e-6);
}

TEST_CASE("steps of one size ask the system for memory only at the start") {
  Context ctx(1, 5);
  Workers workers(ctx);
  Net net(ctx);
  auto step = [&] {
    net.zero_grad();
    batch_gradient(workers, 4, [&](Tape& tape, int64_t part) { return net.loss(tape, part); });
  };
  step();
  step();
  const MemoryStatistics before = workers.memory();
  for (int i = 0; i < 5; ++i) step();
  CHECK(workers.memory().system_calls == before.system_calls);
  CHECK(workers.memory().in_use == before.in_use);
  CHECK(workers.memory().calls > before.calls);
}

TEST_CASE("what the parts of a batch observe is added up, averaged by weight, or the largest") {
  Context ctx(2);
  Workers workers(ctx);
  Parameter p;
  p.value = ctx.zeros({1}, DType::f64);
  PendingBatch pending = batch_gradient(workers, 3, [&](Tape& tape, int64_t part) {
    const auto x = static_cast<double>(part);
    tape.observe("sum", x + 1, Observation::sum);
    tape.observe("mean", x, Observation::mean, x + 1);
    tape.observe("max", -x, Observation::max);
    if (part == 1) tape.observe("once", 7, Observation::mean, 5);
    return tape.parameter(p);
  });
  const std::map<std::string, double> expected = {{"sum", 6}, {"mean", 8. / 6}, {"max", 0}, {"once", 7}};
  CHECK(pending.get().observed == expected);
}

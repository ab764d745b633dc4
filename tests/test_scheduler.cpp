#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>

#include "autograd/optim/scheduler.h"
#include "engine/fields.h"
#include "engine/safetensors.h"
#include "tests/support/op_case.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

const std::vector<double> three_rates = {1e-3, 3e-4, 1e-3};

Optimizer optimizer_with(Context& ctx, const std::vector<double>& rates, const std::string& name = "AdamW") {
  std::vector<ParameterGroup> groups;
  for (double lr : rates) groups.push_back({{}, lr, {}});
  return Optimizer(ctx, {name, {}, {}}, groups);
}

/// One training run: the rates that each step used, row by row, and beta1.
struct Rates {
  std::vector<double> lr, beta1;
};
void record(Rates& r, const Optimizer& o) {
  for (size_t i = 0; i < o.groups(); ++i) r.lr.push_back(o.lr(i));
  r.beta1.push_back(o.beta1());
}

/// As the training loops report: plateau schedules see one validation per step.
void step(Scheduler& s, int64_t iteration, double loss) {
  s.after_update();
  s.after_validation(loss);
  s.after_iteration(iteration);
}

double largest_difference(const std::vector<double>& a, const Array& b) {
  REQUIRE(a.size() == b.values.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    if (!(std::abs(a[i] - b.values[i]) <= largest)) largest = std::abs(a[i] - b.values[i]);
  return largest;
}

const char* file_name = LIGHTCONE_SOURCE_DIR "/tests/golden/optim/schedulers.safetensors";

SchedulerOptions options_of(const std::string& text, std::string& optimizer) {
  const size_t slash = text.find('/');
  const std::string name = text.substr(0, slash), rest = text.substr(slash + 1);
  SchedulerOptions o;
  o.scheduler = name;
  o.iterations = 200;
  char experiment[32];
  long batches = 0, patience = 0;
  if (rest == "Lion" || rest == "Ranger")
    optimizer = rest;
  else if (name == "OneCycleLR")
    REQUIRE(std::sscanf(rest.c_str(), "scale%lf/pct%lf_div%lf", &o.scheduler_scale, &o.onecycle_pct_start,
                        &o.onecycle_div_factor) == 3);
  else if (name == "ReduceLROnPlateau")
    REQUIRE(std::sscanf(rest.c_str(), "factor%lf_patience%ld", &o.reduceplateau_factor, &patience) == 2);
  else if (name == "flat+decay")
    REQUIRE(std::sscanf(rest.c_str(), "%11[a-z]_batches%ld_scale%lf", experiment, &batches, &o.scheduler_scale) == 3);
  else
    REQUIRE(std::sscanf(rest.c_str(), "scale%lf/eta_min%lf", &o.scheduler_scale, &o.cosanneal_eta_min) == 2);
  if (batches) o.exp_type = experiment, o.batches_per_epoch = batches;
  o.reduceplateau_patience = patience;
  return o;
}

}  // namespace

TEST_CASE("scheduler: the experiments' schedules agree with PyTorch's, step by step, and resume anywhere") {
  Context ctx(1);
  const Safetensors file(file_name);
  const Array losses = to_array(file.load(ctx, "in/plateau_losses"));
  const Json cases = Json::parse(file.metadata().at("cases"));
  int seen = 0, raised = 0;
  for (const auto& [name, info] : cases.items()) {
    if (name.starts_with("weaver/")) continue;
    ++seen;
    std::string kind = "AdamW";
    const SchedulerOptions options = options_of(name, kind);
    const bool cycles = name.starts_with("OneCycleLR"), raises = !info["error"].is_null();
    const Array expected = to_array(file.load(ctx, "out/" + name + "/lr"));

    Rates straight, resumed;
    Optimizer a = optimizer_with(ctx, three_rates, kind);
    auto x = make_scheduler(options, a);
    Optimizer b = optimizer_with(ctx, three_rates, kind);
    auto y = make_scheduler(options, b);
    const int64_t rows = expected.shape[0];
    CHECK(rows == (raises ? 101 : 200));
    for (int64_t s = 0; s < rows; ++s) {
      if (s % 41 ==
          40) {  // a killed run: everything is built anew, from rates that the optimiser's state then replaces
        const State optimizer_state = b.state_dict(), state = y->state_dict();
        b.set_lr(0, 0.5);
        b.load_state_dict(optimizer_state);
        y = make_scheduler(options, b);
        y->load_state_dict(state);
      }
      record(straight, a);
      record(resumed, b);
      if (raises && s == rows - 1) {
        check_error([&] { x->after_update(); }, "stepped 101 times, but the schedule has 100 steps");
        ++raised;
        break;
      }
      step(*x, s, losses[s]);
      step(*y, s, losses[s]);
    }
    const double error = largest_difference(straight.lr, expected);
    INFO(name << ": off by " << error);
    CHECK(error <= 1e-15);
    if (cycles) CHECK(largest_difference(straight.beta1, to_array(file.load(ctx, "out/" + name + "/beta1"))) <= 1e-15);
    CHECK(straight.lr == resumed.lr);
    CHECK(straight.beta1 == resumed.beta1);
  }
  CHECK(seen == 35);
  CHECK(raised == 2);
}

TEST_CASE("scheduler: weaver's schedules agree with weaver's, step by step") {
  Context ctx(1);
  const Safetensors file(file_name);
  const Json cases = Json::parse(file.metadata().at("cases"));
  int seen = 0;
  for (const auto& [key, info] : cases.items()) {
    if (!key.starts_with("weaver/")) continue;
    ++seen;
    const std::string name = key.substr(7);
    const bool mult = name == "flat+decay_lr_mult50";
    WeaverSchedulerOptions o;
    long epochs = 20, steps = 1;
    if (mult) {
      o.lr_scheduler = "flat+decay";
      o.lr_mult = true;
    } else {
      const size_t slash = name.find('/');
      o.lr_scheduler = name.substr(0, slash);
      REQUIRE(std::sscanf(name.c_str() + slash, "/epochs%ld_steps%ld_warmup%lf", &epochs, &steps, &o.warmup_steps) ==
              3);
    }
    o.num_epochs = epochs;
    o.steps_per_epoch = steps;
    Optimizer optimizer = optimizer_with(ctx, mult ? std::vector<double>{1e-3, 1e-3, 0.05, 0.05} : std::vector{1e-3});
    auto scheduler = make_scheduler(o, optimizer);
    Rates rates;
    int64_t iteration = 0;
    for (long e = 0; e < epochs; ++e) {
      for (long s = 0; s < steps; ++s) {
        record(rates, optimizer);
        step(*scheduler, iteration++, 1);
      }
      scheduler->after_epoch();
    }
    const double error = largest_difference(rates.lr, to_array(file.load(ctx, "out/" + key + "/lr")));
    INFO(key << ": off by " << error);
    CHECK(error <= 1e-15);
    const bool cycles = o.lr_scheduler == "one-cycle";
    CHECK(rates.beta1[0] == (cycles ? doctest::Approx(0.95) : doctest::Approx(0.9)));
    if (o.lr_scheduler == "flat+cos" || cycles)  // the last allowed step is behind us
      check_error([&] { scheduler->after_update(); }, fmt::format("stepped {} times", epochs * steps + 1));
  }
  CHECK(seen == 21);
}

TEST_CASE("scheduler: the corners of the definitions") {
  Context ctx(1);
  Optimizer o = optimizer_with(ctx, {1.});
  SchedulerOptions options;
  SUBCASE("none and a schedule that its experiment never steps are constant") {
    for (const char* name : {"none", "flat+decay"}) {
      options = {.scheduler = name, .exp_type = "toptagxl", .iterations = 100, .batches_per_epoch = 1};
      auto s = make_scheduler(options, o);
      for (int i = 0; i < 100; ++i) step(*s, i, 1);
      CHECK(o.lr(0) == 1);
    }
    options.scheduler.reset();
    make_scheduler(options, o)->after_update();
    CHECK(o.lr(0) == 1);
  }
  SUBCASE("plateau: NaN is bad, changes of 1e-8 are not made, the counter restarts") {
    o.set_lr(0, 1.5e-7);
    options = {.scheduler = "ReduceLROnPlateau", .reduceplateau_factor = 0.5, .reduceplateau_patience = 1};
    auto s = make_scheduler(options, o);
    s->after_validation(1);
    for (double expected : {1.5e-7, 0.75e-7, 0.75e-7, 0.375e-7, 0.375e-7, 0.1875e-7, 0.1875e-7, 0.1875e-7}) {
      s->after_validation(NAN);
      CHECK(o.lr(0) == doctest::Approx(expected).epsilon(1e-12));  // halving the last is too little a change
    }
    s->after_validation(1 - 0.5e-4);  // better, but not by 1e-4
    CHECK(s->state_dict().numbers["best"] == 1);
  }
  SUBCASE("an infinite best survives the state") {
    options = {.scheduler = "ReduceLROnPlateau"};
    auto s = make_scheduler(options, o), t = make_scheduler(options, o);
    s->after_validation(NAN);
    t->load_state_dict(s->state_dict());
    CHECK(t->state_dict().numbers == s->state_dict().numbers);
    CHECK(t->state_dict().numbers["best"] == std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("scheduler: bad names, lengths and states are named") {
  Context ctx(1);
  Optimizer o = optimizer_with(ctx, three_rates);
  auto make = [&](SchedulerOptions options) { make_scheduler(options, o); };
  check_error([&] { make({.scheduler = "flatdecay"}); }, "there is no 'flatdecay'; known are none, CosineAnnealingLR");
  check_error([&] { make({.scheduler = "CosineAnnealingLR", .iterations = 0}); }, "a period of at least one step");
  check_error([&] { make({.scheduler = "CosineAnnealingWarmRestarts", .iterations = 1}); },
              "a period of at least one step");
  check_error([&] { make({.scheduler = "CosineAnnealingLR", .iterations = 9, .scheduler_scale = NAN}); },
              "9 iterations times nan");
  check_error([&] { make({.scheduler = "OneCycleLR", .iterations = 0}); }, "at least one step, got 0");
  check_error([&] { make({.scheduler = "OneCycleLR", .iterations = 10, .onecycle_pct_start = 1.5}); },
              "from 0 to 1, got 1.5");
  check_error([&] { make({.scheduler = "OneCycleLR", .iterations = 10, .onecycle_pct_start = 0.1}); },
              "longer than zero");
  check_error([&] { make({.scheduler = "OneCycleLR", .iterations = 10, .onecycle_div_factor = 0}); },
              "div_factor, got 0");
  check_error([&] { make({.scheduler = "ReduceLROnPlateau", .reduceplateau_factor = 1}); }, "below 1, got 1");
  check_error([&] { make({.scheduler = "flat+decay", .iterations = 10, .batches_per_epoch = 0}); },
              "at least 1 batches");
  check_error(
      [&] { make({.scheduler = "flat+decay", .exp_type = "jctagging", .iterations = 10, .batches_per_epoch = 9}); },
      "at least 10 batches per epoch, got 9");
  auto weaver = [&](WeaverSchedulerOptions options) { make_scheduler(options, o); };
  check_error([&] { weaver({.lr_scheduler = "flat+cos"}); }, "1 to 1000000000 steps per epoch, got 0");
  check_error([&] { weaver({.lr_scheduler = "cosine"}); }, "there is no 'cosine'; known are none, steps");
  check_error([&] { weaver({.num_epochs = 0}); }, "1 to 1000000 epochs, got 0");
  check_error([&] { weaver({.lr_scheduler = "flat+decay", .lr_mult = true}); }, "4 parameter groups, got 3");
  check_error([&] { weaver({.lr_scheduler = "warmup+cos", .steps_per_epoch = 5, .warmup_steps = -1}); },
              "warmup_steps");

  auto s = make_scheduler(SchedulerOptions{.scheduler = "CosineAnnealingLR", .iterations = 100}, o);
  s->after_update();
  const double lr = o.lr(0);
  const State good = s->state_dict();
  State bad = good;
  bad.numbers["steps"] = 1.5;
  check_error([&] { s->load_state_dict(bad); }, "steps is 1.5 in the saved state");
  bad = good;
  bad.numbers["base_lr1"] = NAN;
  check_error([&] { s->load_state_dict(bad); }, "base_lr1 is nan");
  bad = good;
  bad.numbers.erase("base_lr2");
  check_error([&] { s->load_state_dict(bad); }, "the saved state has no base_lr2");
  bad = good;
  bad.numbers["best"] = 1;
  check_error([&] { s->load_state_dict(bad); }, "the saved state has best, which is unknown here");
  CHECK(o.lr(0) == lr);
}

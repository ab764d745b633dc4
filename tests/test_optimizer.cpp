#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "autograd/optim/optimizer.h"
#include "engine/fields.h"
#include "engine/safetensors.h"
#include "tests/support/bits.h"
#include "tests/support/devices.h"
#include "tests/support/op_case.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

Tensor load(Context& ctx, const Safetensors& file, const std::string& name) {
  Context cpu(1);
  return ctx.copy(file.load(cpu, name));
}

const std::vector<std::string> all_names = {"Adam", "AdamW", "RAdam", "Lion", "Ranger", "WeaverRanger"};

State copy_of(Context& ctx, State s) {
  for (auto& [name, t] : s.tensors) t = ctx.copy(t);
  return s;
}

/// Parameters of many sizes in both dtypes, some at the kernels' chunks, with reproducible gradients; the last one
/// never has a gradient.
struct Net {
  std::vector<Parameter> parameters;
  std::vector<ParameterGroup> groups;
  Context& ctx;
  explicit Net(Context& c) : ctx(c) {
    const bool cuda = ctx.device() == Device::cuda;
    const std::vector<Shape> shapes = {{3, 5}, {0},   {1},   {cuda ? 512 : 16384}, {cuda ? 2500 : 40000},
                                       {},     {131}, {2, 2}};
    parameters.resize(shapes.size());
    groups = {{{}, 1e-2, 0.1}, {{}, 3e-3, {}}, {{}, 1e-2, 0.}};
    for (size_t i = 0; i < shapes.size(); ++i) {
      parameters[i].value = to_tensor(ctx, normal(shapes[i], 100 + i), i % 3 ? DType::f32 : DType::f64);
      groups[i % 2].parameters.push_back({fmt::format("p{}", i), &parameters[i]});
    }
  }
  void set_gradients(int step) {
    for (size_t i = 0; i + 1 < parameters.size(); ++i) {
      // Four sets, made once, are enough of a variation.
      static std::map<std::pair<uint64_t, int64_t>, Array> made;
      const uint64_t seed = 1000 * (static_cast<uint64_t>(step) % 4 + 1) + i;
      const Shape& shape = parameters[i].value.shape();
      auto it = made.find({seed, shape.numel()});
      if (it == made.end()) it = made.emplace(std::pair(seed, shape.numel()), normal(shape, seed)).first;
      parameters[i].grad = to_tensor(ctx, it->second, parameters[i].value.dtype());
    }
  }
};

bool same_networks(const Net& a, const Net& b) {
  for (size_t i = 0; i < a.parameters.size(); ++i)
    if (!same_bits(a.parameters[i].value, b.parameters[i].value)) return false;
  return true;
}

/// Replays one stored trajectory; the largest deviation from the stored parameters.
double replay(Context& ctx, const Safetensors& file, const std::string& name, const Json& info) {
  const std::string run = "traj/" + name + "/";
  std::map<std::string, Parameter> p;
  for (const char* key : {"a", "b", "c", "d"}) p[key].value = load(ctx, file, std::string("param/") + key);
  const Tensor d = ctx.copy(p["d"].value);
  const auto decay = info["group_weight_decay"];
  const std::array<double, 2> betas = info["betas"];
  const double eps = info["eps"].is_null() ? 1e-8 : info["eps"].get<double>();

  std::function<void()> step;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<kernels::ParameterStep> inner;
  if (name.starts_with("radam_tagging_inner")) {  // Ranger without its outer step
    for (const char* key : {"a", "b", "c"}) {
      const Shape shape = p[key].value.shape();
      inner.push_back({p[key].value, {}, ctx.zeros(shape, DType::f32), ctx.zeros(shape, DType::f32), 0, 3e-2, 0});
    }
    inner[0].weight_decay = decay[0];
    inner[2].lr = 3e-3;
    inner[2].weight_decay = decay[2];
    step = [&] {
      for (size_t i = 0; i < 3; ++i) inner[i].gradient = p[std::string(1, char('a' + i))].grad, ++inner[i].t;
      kernels::optimizer_step(ctx, kernels::UpdateRule::ranger, inner, {betas[0], betas[1], eps});
    };
  } else {
    const std::map<std::string, std::string> names = {
        {"adam", "Adam"}, {"adamw", "AdamW"}, {"radam", "RAdam"}, {"lion", "Lion"}, {"ranger", "Ranger"}};
    OptimizerOptions options{names.at(name.substr(0, name.find('_'))), betas, eps};
    if (name.starts_with("ranger_weaver")) options.name = "WeaverRanger";
    if (options.name == "Ranger") options.betas = {0.9, 0.999};  // what the configurations say, and Ranger ignores
    optimizer = std::make_unique<Optimizer>(
        ctx, options,
        std::vector<ParameterGroup>{{{{"a", &p["a"]}, {"d", &p["d"]}}, 3e-2, decay[0].get<double>()},
                                    {{{"b", &p["b"]}}, 3e-2, {}},
                                    {{{"c", &p["c"]}}, 3e-3, decay[2].get<double>()}});
    step = [&] { optimizer->step(); };
  }

  double largest = 0;
  for (int64_t s = 0; s < 30; ++s) {
    auto row = [&](const std::string& what, const std::string& key) {
      return load(ctx, file, run + what + key).narrow(s, 1).reshape(p[key].value.shape());
    };
    for (const char* key : {"a", "b", "c"}) p[key].grad = row("grad_", key);
    step();
    for (const char* key : {"a", "b", "c"})
      largest = std::max(largest, largest_difference(p[key].value, row("params_", key)));
  }
  CHECK(same_bits(p["d"].value, d));
  return largest;
}

}  // namespace

TEST_CASE("optimizer: 30 steps of every optimiser agree with PyTorch's") {
  for (Device device : devices())
    for (const char* dtype : {"f64", "f32"}) {
      Context ctx(device, 2);
      const Safetensors file(
          fmt::format("{}/tests/golden/optim/optimisers_{}.safetensors", LIGHTCONE_SOURCE_DIR, dtype));
      const Json runs = Json::parse(file.metadata().at("optimisers"));
      CHECK(runs.size() == 20);
      for (const auto& [name, info] : runs.items()) {
        const bool float32 = name.starts_with("ranger") || name.starts_with("radam_tagging_inner");
        const double tolerance = float32 ? 2e-7 : std::string(dtype) == "f64" ? 1e-13 : 1e-6;
        const double error = replay(ctx, file, name, info);
        INFO(name << " " << dtype << ": off by " << error);
        CHECK(error <= tolerance);
      }
    }
}

TEST_CASE("optimizer: the same bits for any number of threads, nothing written outside, no memory after warm-up") {
  for (Device device : devices())
    for (const std::string& name : all_names) {
      Context one(device, 1), many(device, 3);
      one.allocator().set_guard(true);
      Net a(one), b(many);
      Optimizer x(one, {name, {}, {}}, a.groups), y(many, {name, {}, {}}, b.groups);
      for (int s = 0; s < 8; ++s) {
        a.set_gradients(s);
        b.set_gradients(s);
        x.step();
        const int64_t before = many.allocator().statistics().system_calls;
        y.step();
        if (s == 7) CHECK(many.allocator().statistics().system_calls == before);
      }
      CHECK_MESSAGE(same_networks(a, b), name);
      CHECK(one.allocator().guard_violations() == 0);
    }
}

TEST_CASE("optimizer: a run that is saved and loaded in between has the same bits") {
  for (Device device : devices())
    for (const std::string& name : all_names)
      for (int saved_after : {0, 3, 6, 8}) {
        Context ctx(device, 2);
        Net a(ctx), b(ctx);
        Optimizer x(ctx, {name, {}, {}}, a.groups);
        State state;
        auto save = [&] {
          state = copy_of(ctx.host(), x.state_dict());
          for (size_t i = 0; i < a.parameters.size(); ++i) b.parameters[i].value = ctx.copy(a.parameters[i].value);
        };
        for (int s = 0; s < 20; ++s) {
          if (s == saved_after) save();
          if (s == 2) x.set_lr(1, 5e-3), x.set_beta1(0.8);
          a.set_gradients(s);
          x.step();
        }
        for (ParameterGroup& g : b.groups) g.lr = 1;  // all of it must come from the state
        Optimizer y(ctx, {name, {}, {}}, b.groups);
        y.load_state_dict(state);
        for (int s = saved_after; s < 20; ++s) {
          if (s == 2) y.set_lr(1, 5e-3), y.set_beta1(0.8);
          b.set_gradients(s);
          y.step();
        }
        CHECK_MESSAGE(same_networks(a, b), name << " saved after " << saved_after);
        const State p = x.state_dict(), q = y.state_dict();
        CHECK(p.numbers == q.numbers);
        for (const auto& [key, t] : p.tensors) CHECK_MESSAGE(same_bits(t, q.tensors.at(key)), key);
      }
}

TEST_CASE("optimizer: a parameter without a gradient has no state, and starts at its own first step") {
  for (Device device : devices())
    for (const std::string name : {"Adam", "AdamW", "RAdam", "Lion"}) {
      Context ctx(device, 1);
      Parameter late, other, alone;
      late.value = to_tensor(ctx, normal({7}, 1), DType::f64);
      other.value = to_tensor(ctx, normal({7}, 2), DType::f64);
      alone.value = ctx.copy(late.value);
      const Tensor start = ctx.copy(late.value);
      Optimizer both(ctx, {name, {}, {}}, {{{{"late", &late}, {"other", &other}}, 1e-2, 0.1}, {{}, 1, {}}});
      Optimizer single(ctx, {name, {}, {}}, {{{{"alone", &alone}}, 1e-2, 0.1}});
      for (int s = 0; s < 5; ++s) {
        both.zero_grad();
        CHECK(!other.grad.defined());
        other.grad = to_tensor(ctx, normal({7}, 10 + s), DType::f64);
        both.step();
      }
      CHECK(same_bits(late.value, start));
      CHECK(!both.state_dict().tensors.contains("late.exp_avg"));
      CHECK(both.state_dict().numbers.at("late.step") == 0);
      late.grad = alone.grad = to_tensor(ctx, normal({7}, 20), DType::f64);
      both.step();
      single.step();
      CHECK(!same_bits(late.value, start));
      CHECK(same_bits(late.value, alone.value));
    }
}

TEST_CASE("optimizer: NaN in a gradient shows in its own element, and nowhere else") {
  for (Device device : devices())
    for (const std::string& name : all_names) {
      Context ctx(device, 1);
      Parameter p, q;
      p.value = to_tensor(ctx, normal({5}, 1), DType::f32);
      q.value = to_tensor(ctx, normal({5}, 2), DType::f32);
      Optimizer optimizer(ctx, {name, {}, {}}, {{{{"p", &p}, {"q", &q}}, 1e-2, {}}});
      Array bad = normal({5}, 3);
      bad[2] = std::numeric_limits<double>::quiet_NaN();
      p.grad = to_tensor(ctx, bad, DType::f32);
      q.grad = to_tensor(ctx, normal({5}, 4), DType::f32);
      optimizer.step();
      const Array x = to_array(p.value), y = to_array(q.value);
      for (int i = 0; i < 5; ++i) {
        CHECK_MESSAGE(std::isnan(x[i]) == (i == 2), name);
        CHECK(std::isfinite(y[i]));
      }
    }
}

// Among them tensors that no word of 16 bytes can reach, and more than one launch takes.
TEST_CASE("optimizer: every rule, lookahead and moving average have the CPU's bits on every device") {
  using enum kernels::UpdateRule;
  Context cpu(1);
  struct Lists {
    std::vector<kernels::ParameterStep> steps;
    std::vector<Tensor> values, slow;
  };
  std::vector<Shape> shapes = {{1023}, {0}, {1024}, {3, 7}, {1025}, {}, {2050}, {0}};
  shapes.resize(300, Shape({3}));
  for (const auto rule : {adam, adamw, radam, lion, ranger})
    for (const int64_t t : {1, 2, 30}) {
      auto lists = [&](Context& ctx) {
        Lists out;
        for (size_t i = 0; i < shapes.size(); ++i) {
          const DType dtype = i % 3 == 1 ? DType::f64 : DType::f32, state = rule == ranger ? DType::f32 : dtype;
          auto place = [&](uint64_t seed, DType type, bool positive = false) {
            Array a = normal({shapes[i].numel() + 1}, 10 * i + seed);
            if (positive)
              for (double& x : a.values) x *= x;
            const int64_t at = i % 5 == 3;  // elements behind an aligned place
            return ctx.copy(to_tensor(cpu, a, type)).narrow(at, shapes[i].numel()).reshape(shapes[i]);
          };
          out.steps.push_back({place(1, dtype), place(2, dtype), place(3, state), place(4, state, true), t, 1e-2, 0.1});
          out.values.push_back(out.steps.back().value);
          out.slow.push_back(place(5, dtype));
        }
        kernels::optimizer_step(ctx, rule, out.steps, {0.9, 0.95, 1e-5});
        if (rule == adam && t == 1) kernels::lookahead(ctx, out.values, out.slow, 0.3);
        if (rule == adam && t == 2) kernels::ema_update(ctx, out.values, out.slow, 0.9);
        return out;
      };
      const Lists expected = lists(cpu);
      for (Device device : devices()) {
        Context ctx(device, 1);
        const Lists got = lists(ctx);
        int64_t different = 0;
        for (size_t i = 0; i < shapes.size(); ++i) {
          const kernels::ParameterStep &a = got.steps[i], &b = expected.steps[i];
          different += !same_bits(a.value, b.value) + !same_bits(a.m, b.m) + !same_bits(a.v, b.v) +
                       !same_bits(got.slow[i], expected.slow[i]);
        }
        INFO("rule " << static_cast<int>(rule) << ", step " << t << " on " << fmt::format("{}", device));
        CHECK(different == 0);
      }
    }
}

TEST_CASE("optimizer: bad options, parameters, gradients and states are named") {
  Context ctx(1);
  Parameter p, q;
  p.value = to_tensor(ctx, normal({5}, 1), DType::f32);
  q.value = to_tensor(ctx, normal({5}, 1), DType::bf16);
  auto make = [&](OptimizerOptions o, ParameterGroup g = {}) { Optimizer(ctx, o, {g}); };
  check_error(
      [&] {
        make({"SGD", {}, {}});
      },
      "there is no 'SGD'; known are Adam, AdamW, RAdam, Lion, Ranger, WeaverRanger");
  check_error([&] { make({"Adam", {{1, 0.9}}, {}}); }, "betas[0] is 1, expected at least 0 and below 1");
  check_error([&] { make({"Ranger", {{0.9, -0.1}}, {}}); }, "betas[1] is -0.1");
  check_error([&] { make({"Lion", {{NAN, 0.9}}, {}}); }, "betas[0] is nan");
  check_error([&] { make({"Adam", {}, -1e-8}); }, "eps is -1e-08");
  check_error([&] { make({}, {{}, -1e-3, {}}); }, "lr of group 0 is -0.001, expected a finite number of at least 0");
  check_error([&] { make({}, {{}, 1e-3, -0.1}); }, "weight_decay of group 0 is -0.1");
  check_error([&] { make({}, {{{"p", &p}, {"p2", &p}}, 1e-3, {}}); }, "parameter p2 is in the groups twice");
  check_error([&] { make({}, {{{"p", &p}, {"p", &q}}, 1e-3, {}}); }, "two parameters have the name p");

  Optimizer optimizer(ctx, {}, {{{{"net.p", &p}, {"net.q", &q}}, 1e-3, {}}});
  optimizer.step();  // nobody has a gradient
  check_error([&] { optimizer.set_lr(0, NAN); }, "lr of group 0 is nan");
  check_error([&] { optimizer.set_beta1(1); }, "beta1 is 1");
  p.grad = ctx.zeros({4}, DType::f32);
  check_error([&] { optimizer.step(); }, "parameter net.p is f32 [5], its gradient f32 [4]");
  p.grad = ctx.zeros({5}, DType::f32);
  q.grad = ctx.zeros({5}, DType::bf16);
  check_error([&] { optimizer.step(); }, "parameter net.q is bf16, expected f64 or f32");
  CHECK(optimizer.state_dict().numbers.at("net.p.step") == 0);  // the failed steps counted nothing
  q.grad = {};
  optimizer.step();

  const State good = optimizer.state_dict();
  auto load = [&](const std::function<void(State&)>& change) {
    State s = good;
    change(s);
    optimizer.load_state_dict(s);
  };
  check_error([&] { load([](State& s) { s.tensors.erase("net.p.exp_avg"); }); },
              "the saved state has no net.p.exp_avg");
  check_error([&] { load([](State& s) { s.numbers["net.p.step"] = 0; }); }, "has net.p.exp_avg, which is unknown here");
  check_error([&] { load([](State& s) { s.numbers["net.p.step"] = NAN; }); }, "net.p.step is nan in the saved state");
  check_error([&] { load([](State& s) { s.numbers["beta1"] = 2; }); }, "saved beta1 is 2");
  check_error([&] { load([&](State& s) { s.tensors["net.p.exp_avg"] = ctx.zeros({6}, DType::f32); }); },
              "saved net.p.exp_avg has shape [6], expected [5]");
  check_error([&] { load([](State& s) { s.numbers["inner_steps"] = 1; }); }, "has inner_steps, which is unknown here");
  CHECK(optimizer.state_dict().numbers == good.numbers);
}

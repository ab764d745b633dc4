#include "autograd/optim/optimizer.h"

#include <cmath>
#include <set>

#include "engine/check.h"
#include "engine/fields.h"

namespace lightcone {

using kernels::UpdateRule;

namespace {
enum class Slow { none, at_construction, after_first_step };
constexpr int64_t outer_period = 6;
constexpr double outer_alpha = 0.5;

void check_not_negative(const std::string& name, double x) {
  if (!(x >= 0 && std::isfinite(x))) fail("optimizer", "{} is {}, expected a finite number of at least 0", name, x);
}
void check_beta(const std::string& name, double x) {
  if (!(x >= 0 && x < 1)) fail("optimizer", "{} is {}, expected at least 0 and below 1", name, x);
}

}  // namespace

struct Optimizer::Kind {
  const char* name;
  UpdateRule rule;
  kernels::UpdateOptions options;
  double weight_decay = 0;
  Slow slow = Slow::none;
  bool options_fixed = false;

  static const Kind& find(const std::string& name) {
    static const Kind kinds[] = {
        {"Adam", UpdateRule::adam, {0.9, 0.999, 1e-8}},
        {"AdamW", UpdateRule::adamw, {0.9, 0.999, 1e-8}, 0.01},
        {"RAdam", UpdateRule::radam, {0.9, 0.999, 1e-8}},
        {"Lion", UpdateRule::lion, {0.9, 0.99, 0}},
        {"Ranger", UpdateRule::ranger, {0.95, 0.999, 1e-5}, 0, Slow::after_first_step, true},
        {"WeaverRanger", UpdateRule::ranger, {0.95, 0.999, 1e-5}, 0, Slow::at_construction},
    };
    std::string all;
    for (const Kind& k : kinds) {
      if (name == k.name) return k;
      all += (all.empty() ? "" : ", ") + std::string(k.name);
    }
    fail("optimizer", "there is no '{}'; known are {}", name, all);
  }
};

Optimizer::Optimizer(Context& ctx, const OptimizerOptions& options, const std::vector<ParameterGroup>& groups)
    : ctx_(ctx), kind_(Kind::find(options.name)), options_(kind_.options) {
  kernels::UpdateOptions given = options_;
  if (options.betas) {
    given.beta1 = options.betas->front();
    given.beta2 = options.betas->back();
  }
  if (options.eps) given.eps = *options.eps;
  check_beta("betas[0]", given.beta1);
  check_beta("betas[1]", given.beta2);
  check_not_negative("eps", given.eps);
  if (!kind_.options_fixed) options_ = given;

  std::set<const Parameter*> parameters;
  std::set<std::string> names;
  for (const ParameterGroup& g : groups) {
    const std::string where = fmt::format("of group {}", groups_.size());
    check_not_negative("lr " + where, g.lr);
    const double weight_decay = g.weight_decay.value_or(kind_.weight_decay);
    check_not_negative("weight_decay " + where, weight_decay);
    for (const Named<Parameter>& p : g.parameters) {
      if (!parameters.insert(p.item).second) fail("optimizer", "parameter {} is in the groups twice", p.name);
      if (!names.insert(p.name).second) fail("optimizer", "two parameters have the name {}", p.name);
      entries_.emplace_back(Entry{.parameter = p, .group = groups_.size(), .t = 0, .m = {}, .v = {}, .slow = {}});
    }
    groups_.push_back({g.lr, weight_decay});
  }
  if (kind_.slow == Slow::at_construction) take_slow_weights();
}

void Optimizer::create_averages(Entry& e) {
  const Tensor& p = e.parameter.item->value;
  const DType dtype = kind_.rule == UpdateRule::ranger ? DType::f32 : p.dtype();
  e.m = ctx_.zeros(p.shape(), dtype);
  if (kind_.rule != UpdateRule::lion) e.v = ctx_.zeros(p.shape(), dtype);
}

void Optimizer::take_slow_weights() {
  for (Entry& e : entries_) e.slow = ctx_.copy(e.parameter.item->value);
}

void Optimizer::step() {
  for (const Entry& e : entries_) {
    const Parameter& p = *e.parameter.item;
    if (!p.grad.defined()) continue;
    if (p.value.dtype() > DType::f32)
      fail("optimizer", "parameter {} is {}, expected f64 or f32", e.parameter.name, p.value.dtype());
    if (!(p.grad.shape() == p.value.shape()) || p.grad.dtype() != p.value.dtype())
      fail("optimizer", "parameter {} is {} {}, its gradient {} {}", e.parameter.name, p.value.dtype(), p.value.shape(),
           p.grad.dtype(), p.grad.shape());
  }
  for (Entry& e : entries_) {
    Parameter& p = *e.parameter.item;
    if (!p.grad.defined()) continue;
    if (e.t == 0) create_averages(e);
    const Group& g = groups_[e.group];
    steps_.push_back({p.value, p.grad, e.m, e.v, ++e.t, g.lr, g.weight_decay});
  }
  kernels::optimizer_step(ctx_, kind_.rule, steps_, options_);
  steps_.clear();
  if (kind_.slow != Slow::none) step_outer();
}

void Optimizer::step_outer() {
  if (!entries_.empty() && !entries_[0].slow.defined()) take_slow_weights();
  if (++inner_steps_ < outer_period) return;
  inner_steps_ = 0;
  std::vector<Tensor> values, slow;
  for (const Entry& e : entries_) {
    values.push_back(e.parameter.item->value);
    slow.push_back(e.slow);
  }
  kernels::lookahead(ctx_, values, slow, outer_alpha);
}

void Optimizer::zero_grad() {
  for (const Entry& e : entries_) e.parameter.item->grad = {};
}

void Optimizer::set_lr(size_t group, double lr) {
  check_not_negative(fmt::format("lr of group {}", group), lr);
  groups_.at(group).lr = lr;
}

void Optimizer::set_beta1(double beta1) {
  check_beta("beta1", beta1);
  options_.beta1 = beta1;
}

State Optimizer::state_dict() const {
  State s;
  s.numbers = {{"beta1", options_.beta1}, {"beta2", options_.beta2}, {"eps", options_.eps}};
  if (kind_.slow != Slow::none) s.numbers["inner_steps"] = static_cast<double>(inner_steps_);
  for (size_t i = 0; i < groups_.size(); ++i) {
    s.numbers[fmt::format("group{}.lr", i)] = groups_[i].lr;
    s.numbers[fmt::format("group{}.weight_decay", i)] = groups_[i].weight_decay;
  }
  for (const Entry& e : entries_) {
    const std::string& name = e.parameter.name;
    s.numbers[name + ".step"] = static_cast<double>(e.t);
    if (e.m.defined()) s.tensors[name + ".exp_avg"] = ctx_.host().here(e.m);
    if (e.v.defined()) s.tensors[name + ".exp_avg_sq"] = ctx_.host().here(e.v);
    if (e.slow.defined()) s.tensors[name + ".slow"] = ctx_.host().here(e.slow);
  }
  return s;
}

void Optimizer::load_state_dict(State s) {
  constexpr const char* where = "optimizer";
  auto options = options_;
  auto groups = groups_;
  auto entries = entries_;
  int64_t inner_steps = 0;
  options.beta1 = s.take_number(where, "beta1");
  options.beta2 = s.take_number(where, "beta2");
  options.eps = s.take_number(where, "eps");
  check_beta("saved beta1", options.beta1);
  check_beta("saved beta2", options.beta2);
  check_not_negative("saved eps", options.eps);
  if (kind_.slow != Slow::none) inner_steps = s.take_count(where, "inner_steps", outer_period - 1);
  for (size_t i = 0; i < groups.size(); ++i) {
    const std::string group = fmt::format("group{}.", i);
    groups[i] = {s.take_number(where, group + "lr"), s.take_number(where, group + "weight_decay")};
    check_not_negative("saved " + group + "lr", groups[i].lr);
    check_not_negative("saved " + group + "weight_decay", groups[i].weight_decay);
  }
  auto take = [&](const std::string& name, Tensor& target) {
    const Tensor saved = s.take_tensor(where, name);
    check(where, "saved " + name, saved).like(target);
    target = ctx_.copy(saved);
  };
  // Ranger takes its slow weights at the first step: either all parameters have them or none.
  const bool slow = kind_.slow != Slow::none && !entries.empty() &&
                    (kind_.slow == Slow::at_construction || s.tensors.contains(entries[0].parameter.name + ".slow"));
  for (Entry& e : entries) {
    const std::string& name = e.parameter.name;
    e.t = s.take_count(where, name + ".step");
    e.m = e.v = e.slow = {};
    if (e.t > 0) {
      create_averages(e);
      take(name + ".exp_avg", e.m);
      if (e.v.defined()) take(name + ".exp_avg_sq", e.v);
    }
    if (slow)
      take(name + ".slow", e.slow = ctx_.empty(e.parameter.item->value.shape(), e.parameter.item->value.dtype()));
  }
  s.finish(where);
  options_ = options;
  groups_ = std::move(groups);
  entries_ = std::move(entries);
  inner_steps_ = inner_steps;
}

}  // namespace lightcone

#include "autograd/optim/scheduler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

// Ends of phases are compared with step numbers: they must round as the references' do, product by product.
#pragma GCC optimize("fp-contract=off")

namespace lightcone {

namespace {

using std::numbers::pi;
constexpr int64_t forever = std::numeric_limits<int64_t>::max();

/// Start to end along half a cosine.
double anneal(double start, double end, double fraction) {
  return end + (start - end) / 2 * (1 + std::cos(pi * fraction));
}

/// A schedule that is a function of how often it was stepped.
struct Curve {
  enum class When { never, update, iteration, epoch };
  std::string name;
  When when;
  std::function<double(size_t group, double base, int64_t t)> lr;
  std::function<double(int64_t t)> beta1 = {};  ///< empty: left alone
  int64_t last = forever;                       ///< the largest t
  int64_t every = 1;                            ///< iterations per step
};

class CurveScheduler : public Scheduler {
 public:
  CurveScheduler(Optimizer& optimizer, Curve curve) : optimizer_(optimizer), curve_(std::move(curve)) {
    for (size_t i = 0; i < optimizer.groups(); ++i) base_.push_back(optimizer.lr(i));
    apply();
  }
  void after_update() override { step_if(curve_.when == Curve::When::update); }
  void after_iteration(int64_t i) override { step_if(curve_.when == Curve::When::iteration && i % curve_.every == 0); }
  void after_epoch() override { step_if(curve_.when == Curve::When::epoch); }

  State state_dict() const override {
    State s;
    s.numbers["steps"] = static_cast<double>(t_);
    for (size_t i = 0; i < base_.size(); ++i) s.numbers[fmt::format("base_lr{}", i)] = base_[i];
    return s;
  }
  void load_state_dict(State s) override {
    const int64_t t = s.take_count("scheduler", "steps", std::min(curve_.last, int64_t{1} << 53));
    std::vector<double> base;
    for (size_t i = 0; i < base_.size(); ++i) {
      const std::string name = fmt::format("base_lr{}", i);
      base.push_back(s.take_number("scheduler", name));
      if (!(base[i] >= 0 && std::isfinite(base[i])))
        fail("scheduler", "{} is {} in the saved state, expected a finite number of at least 0", name, base[i]);
    }
    s.finish("scheduler");
    t_ = t;
    base_ = std::move(base);
    apply();
  }

 private:
  void step_if(bool event) {
    if (!event) return;
    if (t_ == curve_.last)
      fail(curve_.name, "stepped {} times, but the schedule has {} steps; make it longer or train for less", t_ + 1,
           curve_.last);
    ++t_;
    apply();
  }
  void apply() {
    for (size_t i = 0; i < base_.size(); ++i) optimizer_.set_lr(i, curve_.lr(i, base_[i], t_));
    if (curve_.beta1) optimizer_.set_beta1(curve_.beta1(t_));
  }

  Optimizer& optimizer_;
  Curve curve_;
  std::vector<double> base_;
  int64_t t_ = 0;
};

class Plateau : public Scheduler {
 public:
  Plateau(Optimizer& optimizer, double factor, int64_t patience)
      : optimizer_(optimizer), factor_(factor), patience_(patience) {}
  void after_validation(double loss) override {
    if (loss < best_ * (1 - 1e-4)) {
      best_ = loss;
      bad_ = 0;
    } else if (++bad_ > patience_) {
      bad_ = 0;
      for (size_t i = 0; i < optimizer_.groups(); ++i) {
        const double lr = optimizer_.lr(i), reduced = lr * factor_;
        if (lr - reduced > 1e-8) optimizer_.set_lr(i, reduced);
      }
    }
  }
  State state_dict() const override {
    return {.tensors = {}, .numbers = {{"best", best_}, {"bad", static_cast<double>(bad_)}}};
  }
  void load_state_dict(State s) override {
    const double best = s.take_number("scheduler", "best");
    const int64_t bad = s.take_count("scheduler", "bad");
    s.finish("scheduler");
    best_ = best;
    bad_ = bad;
  }

 private:
  Optimizer& optimizer_;
  double factor_;
  int64_t patience_;
  double best_ = std::numeric_limits<double>::infinity();
  int64_t bad_ = 0;
};

void require(bool holds, const std::string& name, const std::string& what) {
  if (!holds) fail("scheduler", "{} needs {}", name, what);
}

void require_known(const std::string& name, std::initializer_list<const char*> known) {
  if (std::find(known.begin(), known.end(), name) == known.end())
    fail("scheduler", "there is no '{}'; known are {}", name, fmt::join(known, ", "));
}

Curve one_cycle(const std::string& name, double max_lr, int64_t steps, double pct_start, double div_factor) {
  require(steps > 0, name, fmt::format("at least one step, got {}", steps));
  require(pct_start >= 0 && pct_start <= 1, name, fmt::format("a pct_start from 0 to 1, got {}", pct_start));
  require(div_factor > 0, name, fmt::format("a positive div_factor, got {}", div_factor));
  const double peak = pct_start * static_cast<double>(steps) - 1, end = static_cast<double>(steps - 1);
  // A phase without length has no slope; PyTorch divides by zero.
  require(peak != 0 && peak < end, name,
          fmt::format("both phases longer than zero, got pct_start {} of {} steps", pct_start, steps));
  auto cycle = [=](double low, double high, double final, int64_t t) {
    const double x = static_cast<double>(t);
    return x <= peak ? anneal(low, high, x / peak) : anneal(high, final, (x - peak) / (end - peak));
  };
  const double start_lr = max_lr / div_factor;
  return {.name = name,
          .when = Curve::When::update,
          .lr = [=](size_t, double, int64_t t) { return cycle(start_lr, max_lr, start_lr / 1e4, t); },
          .beta1 = [=](int64_t t) { return cycle(0.95, 0.85, 0.95, t); },
          .last = steps};
}

/// `epochs` of which the last 30% decay to 1%.
struct Decay {
  int64_t first, count;
  double gamma;
  explicit Decay(int64_t epochs)
      : count(std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(epochs) * 0.3))),
        gamma(std::pow(0.01, 1 / static_cast<double>(count))) {
    first = epochs - count;
  }
  /// The factor after t epochs. A milestone before 0 (no epochs at all) is never met.
  double operator()(int64_t t) const {
    const int64_t met = std::min(t, first + count - 1) - std::max<int64_t>(first, 0) + 1;
    return std::pow(gamma, static_cast<double>(std::max<int64_t>(0, met)));
  }
};

}  // namespace

std::unique_ptr<Scheduler> make_scheduler(const SchedulerOptions& o, Optimizer& optimizer) {
  const std::string name = o.scheduler.value_or("none");
  require_known(name, {"none", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "ReduceLROnPlateau",
                       "flat+decay"});
  auto curve = [&](Curve c) { return std::make_unique<CurveScheduler>(optimizer, std::move(c)); };
  if (name == "none") return std::make_unique<Scheduler>();
  if (name == "ReduceLROnPlateau") {
    require(o.reduceplateau_factor >= 0 && o.reduceplateau_factor < 1, name,
            fmt::format("a factor of at least 0 and below 1, got {}", o.reduceplateau_factor));
    require(o.reduceplateau_patience >= 0, name,
            fmt::format("a patience of at least 0, got {}", o.reduceplateau_patience));
    return std::make_unique<Plateau>(optimizer, o.reduceplateau_factor, o.reduceplateau_patience);
  }

  const double length = static_cast<double>(o.iterations) * o.scheduler_scale;
  require(length >= 0 && length < 1e15, name,
          fmt::format("a length of at least 0, got {} iterations times {}", o.iterations, o.scheduler_scale));
  const int64_t N = static_cast<int64_t>(length);
  if (name == "OneCycleLR") return curve(one_cycle(name, o.lr, N, o.onecycle_pct_start, o.onecycle_div_factor));
  if (name == "CosineAnnealingLR" || name == "CosineAnnealingWarmRestarts") {
    const bool restarts = name != "CosineAnnealingLR";
    const int64_t period = restarts ? N / 2 : N;
    require(period > 0, name, fmt::format("a period of at least one step, got {} steps in all", N));
    require(o.cosanneal_eta_min >= 0, name, fmt::format("eta_min of at least 0, got {}", o.cosanneal_eta_min));
    return curve({.name = name,
                  .when = Curve::When::update,
                  .lr = [=, eta_min = o.cosanneal_eta_min](size_t, double base, int64_t t) {
                    const double x = static_cast<double>(restarts ? t % period : t);
                    return anneal(base, eta_min, x / static_cast<double>(period));
                  }});
  }
  // flat+decay
  const bool tenths = o.exp_type == "jctagging", stepped = tenths || o.exp_type == "toptagging";
  const int64_t every = tenths ? o.batches_per_epoch / 10 : o.batches_per_epoch;
  require(every > 0, name, fmt::format("at least {} batches per epoch, got {}", tenths ? 10 : 1, o.batches_per_epoch));
  const int64_t epochs = static_cast<int64_t>(length / static_cast<double>(o.batches_per_epoch)) * (tenths ? 10 : 1);
  return curve({.name = name,
                .when = stepped ? Curve::When::iteration : Curve::When::never,
                .lr = [decay = Decay(epochs)](size_t, double base, int64_t t) { return base * decay(t); },
                .every = every});
}

std::unique_ptr<Scheduler> make_scheduler(const WeaverSchedulerOptions& o, Optimizer& optimizer) {
  const std::string& name = o.lr_scheduler;
  require_known(name, {"none", "steps", "flat+decay", "flat+linear", "flat+cos", "warmup+cos", "one-cycle"});
  auto curve = [&](Curve c) { return std::make_unique<CurveScheduler>(optimizer, std::move(c)); };
  if (name == "none") return std::make_unique<Scheduler>();
  require(o.num_epochs > 0 && o.num_epochs < 1'000'000, name, fmt::format("1 to 1000000 epochs, got {}", o.num_epochs));
  if (name == "steps") {
    const auto third = static_cast<int64_t>(std::lround(static_cast<double>(o.num_epochs) / 3));
    return curve({.name = name, .when = Curve::When::epoch, .lr = [=](size_t, double base, int64_t t) {
                    return base * (t >= third ? 0.1 : 1) * (t >= 2 * third ? 0.1 : 1);
                  }});
  }
  if (name == "flat+decay") {
    require(!o.lr_mult || optimizer.groups() == 4, "flat+decay with lr_mult",
            fmt::format("4 parameter groups, got {}", optimizer.groups()));
    return curve({.name = name,
                  .when = Curve::When::epoch,
                  .lr = [decay = Decay(o.num_epochs), lr_mult = o.lr_mult](size_t group, double base, int64_t t) {
                    return lr_mult && group < 2 ? base : base * decay(t);
                  }});
  }

  require(o.steps_per_epoch > 0 && o.steps_per_epoch < 1'000'000'000, name,
          fmt::format("1 to 1000000000 steps per epoch, got {}", o.steps_per_epoch));
  const int64_t steps = o.num_epochs * o.steps_per_epoch;
  const double total = static_cast<double>(steps);
  if (name == "one-cycle") return curve(one_cycle(name, o.start_lr, steps, 0.3, 25));

  require(o.warmup_steps >= 0, name, fmt::format("warmup_steps of at least 0, got {}", o.warmup_steps));
  const double warmup = o.warmup_steps < 1 ? o.warmup_steps * total : o.warmup_steps;
  if (name == "flat+linear" || name == "flat+cos") {
    const double flat = total * 0.7 - 1;
    auto factor = [=, cosine = name == "flat+cos"](double t) {
      if (t < warmup) return t / warmup;
      if (t <= flat) return 1.;
      const double fraction = (t - flat) / (total - flat);
      return std::max(0.001, cosine ? anneal(1, 0, fraction) : 1 - fraction);
    };
    return curve({.name = name,
                  .when = Curve::When::update,
                  .lr = [=](size_t, double base, int64_t t) { return base * factor(static_cast<double>(t)); },
                  .last = steps});
  }
  // warmup+cos
  auto factor = [=](double t) {
    return t < warmup ? t / std::max(1., warmup) : anneal(1, 0, (t - warmup) / std::max(1., total - warmup));
  };
  return curve({.name = name, .when = Curve::When::update, .lr = [=](size_t, double base, int64_t t) {
                  return base * factor(static_cast<double>(t));
                }});
}

}  // namespace lightcone

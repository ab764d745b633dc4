// What a training saves and goes on from.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "experiments/trainer.h"

namespace lightcone {

namespace {

/// The vectors of a history, by the name that a state keeps them under.
template <class History>
auto series(History& h) {
  using Vector = std::conditional_t<std::is_const_v<History>, const std::vector<double>, std::vector<double>>;
  return std::map<std::string, Vector*>{{"step", &h.step},
                                        {"loss", &h.loss},
                                        {"lr", &h.lr},
                                        {"grad_norm", &h.grad_norm},
                                        {"grad_norm_net", &h.grad_norm_net},
                                        {"grad_norm_framesnet", &h.grad_norm_framesnet},
                                        {"validation_step", &h.validation_step},
                                        {"validation_loss", &h.validation_loss}};
}

}  // namespace

bool Trainer::finite() const {
  const auto parameters = task_.model().parameters();
  return std::all_of(parameters.begin(), parameters.end(), [this](const auto& p) {
    const Tensor value = ctx_.host().here(p.item->value);
    return dispatch_compute("training", value.dtype(), [&](auto type) {
      const auto values = value.template span<typename decltype(type)::type>();
      return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
    });
  });
}

TrainingState Trainer::state() {
  return {task_.model(), optimizer_, *scheduler_, ema(), task_.position(), steps_done_, loop_state()};
}

State Trainer::loop_state() {
  const TrainingHistory& h = history_;
  State s;
  // Of another size at each save: copies of it would pile up in the free lists of ctx_.
  Context own(1);
  for (const auto& [name, values] : series(h))
    s.tensors["history." + name] = own.of({static_cast<int64_t>(values->size())}, DType::f64, *values);
  for (const auto& [name, values] : h.observed)
    s.tensors["observed." + name] = own.of({static_cast<int64_t>(values.size())}, DType::f64, values);
  for (const auto& [name, t] : best_) s.tensors["best." + name] = t;
  auto put = [&](const char* name, auto value) { s.numbers[name] = static_cast<double>(value); };
  put("first_step", first_step_);
  put("network_step_plus_1", saved_step_ + 1);
  put("metrics_begin", metrics_begin_);
  put("batches_per_epoch", task_.batches_per_epoch());
  put("best_loss", best_loss_);
  put("bad_validations", bad_validations_);
  put("finished", finished_);
  put("stopped_early", h.stopped_early);
  put("skipped", h.skipped);
  put("items", h.items);
  put("seconds.training", h.training_seconds);
  put("seconds.validation", h.validation_seconds);
  return s;
}

void Trainer::set_loop_state(State s) {
  const std::string where = folder_.state_path(folder_.index()).string();
  auto count = [&](const char* name) { return s.take_count(where, name); };
  if (const int64_t batches = count("batches_per_epoch"); batches != task_.batches_per_epoch())
    fail("resume", "the training set gives {} batches an epoch, {} when the training began; it must be the same jets",
         task_.batches_per_epoch(), batches);
  TrainingHistory& h = history_;
  for (const auto& [name, values] : series(h)) {
    const Tensor t = s.take_tensor(where, "history." + name);
    values->assign(t.data<double>(), t.data<double>() + t.numel());
  }
  best_.clear();
  h.observed.clear();
  for (const auto& [name, t] : std::exchange(s.tensors, {})) {
    if (name.starts_with("observed.")) {
      h.observed[name.substr(9)].assign(t.data<double>(), t.data<double>() + t.numel());
      continue;
    }
    if (!name.starts_with("best.")) fail(where, "the saved state has an unknown entry '{}'", name);
    best_[name.substr(5)] = t;
  }
  first_step_ = count("first_step");
  saved_step_ = count("network_step_plus_1") - 1;
  metrics_begin_ = count("metrics_begin");
  best_loss_ = s.take_number(where, "best_loss");
  bad_validations_ = count("bad_validations");
  finished_ = count("finished");
  h.stopped_early = count("stopped_early");
  h.skipped = count("skipped");
  h.items = count("items");
  h.training_seconds = s.take_number(where, "seconds.training");
  h.validation_seconds = s.take_number(where, "seconds.validation");
  earlier_seconds_ = h.training_seconds + h.validation_seconds;
  s.finish(where);
}

void Trainer::warm_start(int64_t index, bool new_schedule) {
  const State schedule = scheduler_->state_dict();
  const double beta1 = optimizer_.beta1();
  std::vector<double> rates;
  for (size_t g = 0; g < optimizer_.groups(); ++g) rates.push_back(optimizer_.lr(g));
  TrainingState loaded = state();
  load_state(ctx_, folder_.state_path(index), loaded);
  if (new_schedule) {
    scheduler_->load_state_dict(schedule);
    optimizer_.set_beta1(beta1);
    for (size_t g = 0; g < rates.size(); ++g) optimizer_.set_lr(g, rates[g]);
  }
  task_.seek(loaded.position);
  first_step_ = steps_done_ = loaded.step;
  std::error_code none;
  const auto size = std::filesystem::file_size(folder_.path() / "metrics.csv", none);
  metrics_begin_ = none ? 0 : static_cast<int64_t>(size);
  log_->info("Going on from {} after {} steps{}", folder_.state_path(index).string(), loaded.step,
             new_schedule ? fmt::format(", with the rate {:.3g}", training_.lr) : "");
}

void Trainer::resume() {
  TrainingState loaded = state();
  load_state(ctx_, folder_.state_path(folder_.index()), loaded);
  task_.seek(loaded.position);
  steps_done_ = state_step_ = loaded.step;
  set_loop_state(std::move(loaded.loop));
}

void Trainer::guarded(const std::function<void()>& write) const {
  try {
    write();
  } catch (const Error& e) {
    const auto state = folder_.state_path(folder_.index());
    std::error_code ignored;
    if (state_step_ < 0 || !std::filesystem::exists(state, ignored)) throw;
    throw Error(fmt::format("{}. The state of step {} is kept; then go on with: {}", e.what(), state_step_,
                            folder_.resume_command()));
  }
}

void Trainer::save_state() {
  finish_step();
  // A network that is not finite is of no use; the next step will say so.
  if (!folder_.saves() || !finite()) return;
  guarded([&] { lightcone::save_state(ctx_, folder_.state_path(folder_.index()), state()); });
  state_step_ = steps_done_;
}

void Trainer::save_network() {
  if (!folder_.saves()) return;
  guarded([&] {
    save_model(ctx_, folder_.model_path(folder_.index()), task_.model(), ema());
    if (!std::exchange(published_, true)) folder_.publish(config_);
  });
  saved_step_ = steps_done_;
}

}  // namespace lightcone

#include "experiments/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "autograd/optim/clip.h"
#include "experiments/batch_gradient.h"
#include "experiments/interrupt.h"
#include "experiments/machine.h"
#include "experiments/metrics_file.h"
#include "experiments/progress.h"
#include "kernels/elementwise.h"

namespace lightcone {

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Below this step max_grad_norm is not applied: early gradients are long.
constexpr int64_t first_skippable_step = 1000;

std::vector<Named<Parameter>> with_prefix(const std::vector<Named<Parameter>>& parameters, std::string_view prefix) {
  std::vector<Named<Parameter>> out;
  for (const auto& p : parameters)
    if (p.name.starts_with(prefix)) out.push_back(p);
  return out;
}

}  // namespace

std::vector<ParameterGroup> default_groups(const Module& model, const TrainingConfig& t) {
  const double frames_lr = t.lr * t.lr_factor_framesnet;
  std::vector<ParameterGroup> groups = {
      {{}, t.lr, t.weight_decay}, {{}, t.lr, 0.0}, {{}, frames_lr, t.weight_decay_framesnet}, {{}, frames_lr, 0.0}};
  for (const auto& p : model.parameters()) {
    if (!p.item->trainable) continue;
    const bool frames = p.name.starts_with("framesnet."), vector = p.item->value.rank() <= 1;
    groups[2 * frames + vector].parameters.push_back(p);
  }
  return groups;
}

PendingNorms update(Context& ctx, Module& model, Optimizer& optimizer, Ema* ema, const TrainingConfig& t,
                    int64_t step) {
  const auto all = model.parameters(), net = with_prefix(all, "net."), frames = with_prefix(all, "framesnet.");
  PendingNorms out;
  out.step_ = step;
  std::vector<Tensor> norms = {gradient_norm(ctx, net), gradient_norm(ctx, frames)};
  const bool wait = ctx.device() == Device::cpu || t.max_grad_norm;
  if (wait && !t.clip_grad_norm) out.numbers_ = ctx.read(norms), out.get();
  if (t.clip_grad_value) clip_gradient_value(ctx, all, *t.clip_grad_value);
  if (t.clip_grad_norm) norms.push_back(clip_gradient_norm(ctx, all, *t.clip_grad_norm));
  if (t.clip_grad_norm_framesnet) clip_gradient_norm(ctx, frames, *t.clip_grad_norm_framesnet);
  if (!out.read_) out.numbers_ = ctx.read(norms);
  if (wait) out.norms_.skipped = t.max_grad_norm && step > first_skippable_step && out.get().total > *t.max_grad_norm;
  if (!out.norms_.skipped) {
    optimizer.step();
    if (ema) ema->update();
  }
  model.zero_grad();
  return out;
}

GradientNorms PendingNorms::get() {
  if (read_) return norms_;
  const std::vector<double>& numbers = numbers_.values();
  norms_.net = numbers[0], norms_.framesnet = numbers[1];
  if (!std::isfinite(norms_.net) || !std::isfinite(norms_.framesnet))
    fail("training",
         "the gradient of step {} is not finite (norm of net {}, of framesnet {}); try a smaller learning rate, "
         "gradient clipping or use_float64=true",
         step_, norms_.net, norms_.framesnet);
  norms_.total = numbers.size() > 2 ? numbers[2] : norms_.net + norms_.framesnet;
  read_ = true;
  return norms_;
}

Optimizer make_optimizer(Context& ctx, const Module& model, const TrainingConfig& t) {
  OptimizerOptions options{.name = t.optimizer, .betas = {}, .eps = {}};
  // Ranger keeps its own, as the references do not pass theirs on.
  if (t.optimizer != "Ranger") options.betas = t.betas, options.eps = t.eps;
  return Optimizer(ctx, options, default_groups(model, t));
}

std::unique_ptr<Scheduler> make_scheduler(const ExperimentConfig& config, int64_t batches_per_epoch,
                                          Optimizer& optimizer) {
  const TrainingConfig& t = config.training;
  return make_scheduler(SchedulerOptions{.scheduler = t.scheduler,
                                         .exp_type = config.exp_type,
                                         .lr = t.lr,
                                         .iterations = t.iterations,
                                         .batches_per_epoch = batches_per_epoch,
                                         .scheduler_scale = t.scheduler_scale,
                                         .cosanneal_eta_min = t.cosanneal_eta_min,
                                         .onecycle_pct_start = t.onecycle_pct_start,
                                         .onecycle_div_factor = t.onecycle_div_factor,
                                         .reduceplateau_factor = t.reduceplateau_factor,
                                         .reduceplateau_patience = t.reduceplateau_patience},
                        optimizer);
}

void TrainingHistory::begin(int64_t steps_done, double learning_rate) {
  step.push_back(static_cast<double>(steps_done));
  lr.push_back(learning_rate);
  for (auto* series : {&loss, &grad_norm, &grad_norm_net, &grad_norm_framesnet}) series->push_back(std::nan(""));
}

void TrainingHistory::complete(size_t i, const BatchResult& batch, const GradientNorms& norms) {
  loss[i] = batch.loss;
  grad_norm[i] = norms.total;
  grad_norm_net[i] = norms.net;
  grad_norm_framesnet[i] = norms.framesnet;
  for (const auto& [name, value] : batch.observed) observed[name].push_back(value);
  skipped += norms.skipped;
}

Trainer::Trainer(Context& ctx, Trainable& task, const ExperimentConfig& config, const RunFolder& folder, Log& log)
    : ctx_(ctx),
      workers_(ctx),
      task_(task),
      config_(config),
      folder_(folder),
      log_(log),
      training_(config.training),
      optimizer_(make_optimizer(ctx, task.model(), config.training)),
      scheduler_(make_scheduler(config, task.batches_per_epoch(), optimizer_)) {
  if (config.ema) ema_.emplace(ctx, task.model().parameters(), config.ema_decay);
  if (training_.validate_every_n_epochs_min) {
    const auto least =
        static_cast<int64_t>(*training_.validate_every_n_epochs_min * static_cast<double>(task.batches_per_epoch()));
    training_.validate_every_n_steps = std::max<int64_t>(1, std::min(training_.validate_every_n_steps, least));
  }
}

bool Trainer::validation_due() const {
  const TrainingHistory& h = history_;
  return !h.step.empty() && static_cast<int64_t>(h.step.size()) % training_.validate_every_n_steps == 0 &&
         (h.validation_step.empty() || h.validation_step.back() != h.step.back());
}

void Trainer::validate() {
  const auto begin = Clock::now();
  finish_step();
  TrainingHistory& h = history_;
  auto loss_now = [&] {
    if (!ema_) return task_.validation_loss();
    const auto averaged = ema_->average();
    return task_.validation_loss();
  };
  const double loss = loss_now();
  log_->info("Step {:>7}: training loss {:.4f}, validation loss {:.4f}, lr {:.2e}", steps_done_, h.loss.back(), loss,
             h.lr.back());
  if (!std::isfinite(loss))
    fail("training", "the validation loss after step {} is {}; {}. Try a smaller learning rate", steps_done_, loss,
         kept());
  h.validation_step.push_back(static_cast<double>(steps_done_));
  h.validation_loss.push_back(loss);
  h.validation_seconds += seconds_since(begin);
}

std::string Trainer::kept() const {
  return saved_step_ < 0 ? "no network was saved yet" : fmt::format("the network of step {} is kept", saved_step_);
}

int64_t Trainer::take_step() {
  TrainingHistory& h = history_;
  const double lr = optimizer_.lr(0);
  const auto step = static_cast<int64_t>(h.step.size());
  const Trainable::Batch batch = task_.next_batch();
  Step s{
      .index = h.step.size(),
      .number = first_step_ + step,
      .batch = batch_gradient(workers_, batch.parts, [&](Tape& tape, int64_t part) { return task_.loss(tape, part); }),
      .norms = {}};
  const bool wait = ctx_.device() == Device::cpu;
  if (wait) require_finite(s);
  s.norms = update(ctx_, task_.model(), optimizer_, ema(), training_, step);
  if (!s.norms.skipped()) scheduler_->after_update();
  steps_done_ = first_step_ + step + 1;
  if (const int64_t calls = workers_.memory().system_calls; calls != system_calls_) {
    system_calls_ = calls;
    last_growth_ = steps_done_;
  }
  finish_step();
  h.begin(steps_done_, lr);
  h.items += batch.items;
  pending_ = std::move(s);
  if (wait) finish_step();
  return batch.items;
}

void Trainer::require_finite(Step& step) const {
  if (const double loss = step.batch.get().loss; !std::isfinite(loss))
    fail("training",
         "the loss of step {} is {}; {}. Try a smaller learning rate, gradient clipping or use_float64=true",
         step.number, loss, kept());
}

void Trainer::finish_step() {
  if (!pending_) return;
  Step step = std::move(*std::exchange(pending_, {}));
  require_finite(step);
  history_.complete(step.index, step.batch.get(), step.norms.get());
}

bool Trainer::goes_on(double validation_loss) {
  if (validation_loss < best_loss_) {
    best_loss_ = validation_loss;
    bad_validations_ = 0;
    if (training_.es_load_best_model) {
      best_.clear();
      for (auto& [name, t] : task_.model().state_dict(ctx_)) {
        best_.emplace(name, ctx_.host().copy(t));
      }
    }
    return true;
  }
  return ++bad_validations_ <= training_.es_patience;
}

void Trainer::run(MetricsFile& metrics) {
  TrainingHistory& h = history_;
  const int64_t N = training_.iterations;
  auto steps = [&] { return static_cast<int64_t>(h.step.size()); };
  Progress progress(N, steps(), log_.terminal() ? ProgressOutput::terminal() : ProgressOutput::none());
  for (auto last_save = Clock::now(); validation_due() || (steps() < N && !h.stopped_early);) {
    int64_t items = 0;
    if (!validation_due()) {
      const auto begin = Clock::now();
      const int64_t skipped = h.skipped;
      items = take_step();
      h.training_seconds += seconds_since(begin);
      if (h.skipped != skipped) {
        progress.clear();
        log_->warn("Skipping step {}: gradient norm {:.4g} exceeds max_grad_norm {:.4g}", steps_done_,
                   h.grad_norm.back(), *training_.max_grad_norm);
      }
    }
    if (validation_due()) {
      save_state();
      last_save = Clock::now();
      progress.clear();
      Interrupts::allow();  // a validation may take long, and is repeated
      validate();
      Interrupts::defer();
      save_network();
      scheduler_->after_validation(h.validation_loss.back());
      h.stopped_early = !goes_on(h.validation_loss.back());
    }
    scheduler_->after_iteration(steps() - 1);
    const size_t pending = pending_.has_value();
    guarded([&] { metrics.rows(h, pending); });
    if (steps() > static_cast<int64_t>(pending))
      progress.update(steps(), h.loss[h.loss.size() - 1 - pending], h.lr.back(), items);
    const auto& minutes = training_.checkpoint_every_n_minutes;
    if (Interrupts::pending() || (minutes && seconds_since(last_save) >= 60 * *minutes)) {
      save_state();
      last_save = Clock::now();
      if (Interrupts::pending()) {
        progress.finish();
        log_memory();
        Interrupts::allow();
      }
    }
  }
  finish_step();
  guarded([&] { metrics.rows(h, 0); });
  progress.finish();
}

void Trainer::take_best() {
  if (best_.empty()) return;
  log_->info("Taking the network of the best validation (loss {:.4f})", best_loss_);
  task_.model().load_state_dict(ctx_, [&](const std::string& name) { return best_.at(name); });
}

TrainingHistory Trainer::train() {
  TrainingHistory& h = history_;
  const int64_t N = training_.iterations, per_epoch = task_.batches_per_epoch();
  log_->info("Training for {} iterations = {:.1f} epochs of {} {}, validating every {} iterations, patience {}{}", N,
             static_cast<double>(N) / static_cast<double>(per_epoch), per_epoch, per_epoch == 1 ? "batch" : "batches",
             training_.validate_every_n_steps, training_.es_patience,
             folder_.resumes() ? fmt::format(", {} iterations are done", h.step.size()) : "");
  if (per_epoch == 1)
    log_->warn(
        "All training jets are one batch, so every iteration sees all of them; a smaller training.batchsize "
        "gives more");
  if (training_.validate_every_n_steps > N)
    log_->warn("No validation falls into this run; training.validate_every_n_steps={} would make ten",
               std::max<int64_t>(1, N / 10));
  std::optional<MetricsFile> metrics;
  guarded([&] {
    metrics.emplace(folder_.saves() ? folder_.path() / "metrics.csv" : std::filesystem::path{}, metrics_begin_);
    metrics->rows(h, validation_due());
  });
  if (!finished_) {
    Interrupts::defer();
    run(*metrics);
    if (h.stopped_early)
      log_->info("Stopped early at step {}: {} validations without a better loss than {:.4f}", steps_done_,
                 bad_validations_, best_loss_);
    take_best();
    if (!finite()) fail("training", "the network after step {} is not finite; {}", steps_done_, kept());
    finished_ = true;
    save_state();
    Interrupts::allow();
  }
  save_network();  // after a resume, too: the kill may have come before it
  h.items_per_second = static_cast<double>(h.items) / std::max(h.training_seconds, 1e-9);
  log_->info("Trained for {} ({:.0f} jets/s), validated for {}", duration_text(h.training_seconds), h.items_per_second,
             duration_text(h.validation_seconds));
  log_memory();
  return h;
}

void Trainer::log_memory() {
  if (last_growth_)
    log_->info("Tensors of training take {}; none was asked from the system after step {}",
               bytes_text(workers_.memory().reserved), last_growth_);
}

}  // namespace lightcone

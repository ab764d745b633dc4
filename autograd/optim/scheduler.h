#pragma once
#include <memory>
#include <optional>
#include <string>

#include "autograd/optim/optimizer.h"

namespace lightcone {

/// Sets the learning rates of an optimiser's groups as training goes. Each schedule listens to one of the four events
/// and ignores the others, so that a training loop reports all of them, in this order:
///
///     optimizer.step(); ema.update(); scheduler.after_update();     // none of the three if the step is skipped
///     scheduler.after_validation(loss);                             // if this iteration validates
///     scheduler.after_iteration(iteration);                         // from 0; skipped steps count
///     scheduler.after_epoch();
///
/// A new schedule takes the groups' present rates as its base and sets those of the first step. With t the number of
/// times that it was stepped, N = int(iterations * scheduler_scale) and B batches per epoch:
///
///   CosineAnnealingLR             eta_min + (base - eta_min) (1 + cos(pi t/N))/2, after each update; past N it rises
///                                 again
///   CosineAnnealingWarmRestarts   the same with t mod T0 and T0, T0 = int(N/2)
///   OneCycleLR                    after each update: half cosines from max/div_factor to max at t = pct_start N - 1
///                                 and on to 1e-4 of the start at N - 1, where max is the config's lr *for every
///                                 group*; beta1 goes 0.95, 0.85, 0.95 with it, whatever betas the optimiser was given.
///                                 Stepping to t = N + 1 throws Error, as in PyTorch
///   ReduceLROnPlateau             after each validation: unless loss < best (1 - 1e-4) it was a bad one (NaN is bad);
///                                 after more than `patience` bad ones in a row, rates are multiplied by `factor`,
///                                 changes of 1e-8 or less left out
///   flat+decay                    epochs = int(N/B), times 10 for jctagging; in each of the last max(1, int(0.3
///                                 epochs)) rates are multiplied so that they end at 1%. Stepped after the iterations
///                                 0, B, 2B, … (jctagging: multiples of int(B/10)), hence one epoch ahead. With 0
///                                 epochs it never decays, with 1 the whole run has 1%. Experiments other than
///                                 toptagging and jctagging do not step it at all, as in the references
///
/// Source: torch.optim.lr_scheduler and the experiments' training loop.
class Scheduler {
 public:
  virtual ~Scheduler() = default;
  virtual void after_update() {}
  virtual void after_validation(double /*loss*/) {}
  virtual void after_iteration(int64_t /*iteration*/) {}
  virtual void after_epoch() {}

  /// Counters, base rates and the best loss. The rates themselves are in the optimiser's state: load both.
  virtual State state_dict() const { return {}; }
  /// Throws Error naming an entry that is missing, bad or unknown; nothing is changed then.
  virtual void load_state_dict(State state) { state.finish("scheduler"); }
};

/// The keys of a `training` configuration.
struct SchedulerOptions {
  std::optional<std::string> scheduler;  ///< nothing or "none": constant
  std::string exp_type = "toptagging";
  double lr = 1e-3;
  int64_t iterations = 0, batches_per_epoch = 0;
  double scheduler_scale = 1;
  double cosanneal_eta_min = 0;
  double onecycle_pct_start = 0.3, onecycle_div_factor = 25;
  double reduceplateau_factor = 0.1;
  int64_t reduceplateau_patience = 50;
};

/// Throws Error on an unknown name (listing all) and where PyTorch would raise or divide by zero.
std::unique_ptr<Scheduler> make_scheduler(const SchedulerOptions& options, Optimizer& optimizer);

/// Those of weaver-core's train.py, with E epochs of S steps each:
///
///   none
///   steps         after each epoch: x 0.1 at round(E/3) and twice that
///   flat+decay    after each epoch: as above, counted at epoch ends; with lr_mult only groups 2 and 3 decay, of the
///                 four (no decay, decay) x (1, multiplied)
///   flat+linear   after each update: warm-up from 0, then 1 until 0.7 E S - 1, then linearly to 0, but at least 0.001
///   flat+cos      the same with a half cosine
///   warmup+cos    after each update: warm-up from 0, then a half cosine to 0
///   one-cycle     OneCycleLR with start_lr, pct_start 0.3 and div_factor 25
///
/// warmup_steps below 1 are a fraction of E S.
struct WeaverSchedulerOptions {
  std::string lr_scheduler = "flat+decay";
  double start_lr = 1e-3;
  int64_t num_epochs = 20, steps_per_epoch = 0;
  double warmup_steps = 0.25;
  bool lr_mult = false;
};

std::unique_ptr<Scheduler> make_scheduler(const WeaverSchedulerOptions& options, Optimizer& optimizer);

}  // namespace lightcone

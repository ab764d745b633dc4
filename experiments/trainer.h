#pragma once
#include <functional>
#include <limits>
#include <map>
#include <optional>

#include "autograd/module.h"
#include "experiments/batch_gradient.h"
#include "experiments/checkpoint.h"
#include "experiments/config.h"
#include "experiments/run_folder.h"

namespace lightcone {

/// What the training loop asks of an experiment; all else is the same for tagging, amplitudes and event generation.
class Trainable {
 public:
  virtual ~Trainable() = default;
  virtual Module& model() = 0;
  virtual int64_t batches_per_epoch() const = 0;
  /// The next call of next_batch() takes the batch at this position.
  virtual void seek(BatchPosition position) = 0;
  /// Position of the batch that next_batch() takes next.
  virtual BatchPosition position() const = 0;
  struct Batch {
    int64_t parts;  ///< that can be worked on independently; a function of the batch alone
    int64_t items;
  };
  virtual Batch next_batch() = 0;
  /// What one part of that batch contributes to its loss, the mean over all items: the batch's loss is the sum over the
  /// parts. Called for several parts at the same time, each on a thread of its own.
  virtual Var loss(Tape& tape, int64_t part) = 0;
  /// Loss of the model as it stands on the validation set.
  virtual double validation_loss() = 0;
};

/// Parameter groups of the references: matrices of net with `weight_decay`, its vectors without; the same for framesnet
/// with its own rate and decay.
std::vector<ParameterGroup> default_groups(const Module& model, const TrainingConfig& training);

/// The optimiser and the schedule that `training` names.
Optimizer make_optimizer(Context& ctx, const Module& model, const TrainingConfig& training);
std::unique_ptr<Scheduler> make_scheduler(const ExperimentConfig& config, int64_t batches_per_epoch,
                                          Optimizer& optimizer);

/// Norms of one step's gradient, before clipping. `total` is what clip_grad_norm measures: the norm of all gradients;
/// without clipping by norm the references report net + framesnet.
struct GradientNorms {
  double total = 0, net = 0, framesnet = 0;
  bool skipped = false;  ///< the step was left out because of max_grad_norm
};

/// The same while a GPU is at it.
class PendingNorms {
 public:
  /// Waits for them, and not for what was asked of the GPU since. Throws Error naming the step if a gradient is NaN or
  /// infinite.
  GradientNorms get();
  /// Known at once.
  bool skipped() const { return norms_.skipped; }

 private:
  friend PendingNorms update(Context&, Module&, Optimizer&, Ema*, const TrainingConfig&, int64_t);
  GradientNorms norms_;
  int64_t step_ = 0;
  bool read_ = false;
  Context::Reading numbers_;  ///< net, framesnet and, with clip_grad_norm, total
};

/// From gradients to updated parameters, in the order of the references: norms, clip by value, clip by norm, clip the
/// frames network again, skip if too long (after step 1000), optimiser, averages. Does not touch the schedule. Throws
/// Error naming the step if a gradient is NaN or infinite; parameters are as before then. On a GPU that is found out
/// when the norms are read, and the parameters have moved, unless max_grad_norm has the step wait for its norms.
PendingNorms update(Context& ctx, Module& model, Optimizer& optimizer, Ema* ema, const TrainingConfig& training,
                    int64_t step);

/// What training leaves behind, one entry per step (losses, rates, norms) or per validation.
struct TrainingHistory {
  std::vector<double> step, loss, lr, grad_norm, grad_norm_net, grad_norm_framesnet;
  std::map<std::string, std::vector<double>> observed;  ///< what the network observes (Tape::observe), by name
  std::vector<double> validation_step, validation_loss;
  int64_t skipped = 0, items = 0;
  double training_seconds = 0, validation_seconds = 0, items_per_second = 0;
  bool stopped_early = false;
  /// A step whose numbers are still to come: NaN until then.
  void begin(int64_t steps_done, double lr);
  /// Those of step i.
  void complete(size_t i, const BatchResult& batch, const GradientNorms& norms);
};

class MetricsFile;

/// The training loop: steps, schedule, validation, early stopping, progress display and metrics.csv. Everything random
/// comes from ctx.rng().
///
/// The state file is the one that counts: it holds all that the loop needs and is replaced as a whole, before every
/// validation, every checkpoint_every_n_minutes, at the end, and when a signal asks the program to end (interrupt.h).
/// From it resume() goes on to the same bits: what comes after a save (validation, network, rows of metrics.csv) is
/// done again. The network is saved after each validation and at the end.
///
/// A loss or gradient that is NaN or infinite ends it with an Error that names the step; the network of the last
/// validation stays.
class Trainer {
 public:
  Trainer(Context& ctx, Trainable& task, const ExperimentConfig& config, const RunFolder& folder, Log& log);
  TrainingHistory train();
  /// Averaged parameters, where config.ema asks for them.
  Ema* ema() { return ema_ ? &*ema_ : nullptr; }
  /// Goes on from what an earlier training of this run saved last; with `new_schedule` at the rate and from the start
  /// of the schedule that the configuration names.
  void warm_start(int64_t index, bool new_schedule = false);
  /// Goes on where this training was when it was saved last.
  void resume();
  /// Seconds that the trainings before a resume took.
  double earlier_seconds() const { return earlier_seconds_; }
  /// For the start; train() saves when it is due.
  void save_state();

 private:
  /// A step that a GPU may still be at: its numbers are read when the next one has been asked for, so that the GPU
  /// never waits for the CPU.
  struct Step {
    size_t index;  ///< in the history
    int64_t number;
    PendingBatch batch;
    PendingNorms norms;
  };
  /// Returns the number of items.
  int64_t take_step();
  /// Reads the numbers of the step that is pending; throws Error if they are not finite.
  void finish_step();
  void require_finite(Step& step) const;
  void run(MetricsFile& metrics);
  bool validation_due() const;
  void validate();
  /// Early stopping: false once es_patience validations in a row were not better. Keeps the best network if asked to.
  bool goes_on(double validation_loss);
  void take_best();
  void save_network();
  bool finite() const;
  /// Does what writes files; a failure says that the last state is there.
  void guarded(const std::function<void()>& write) const;
  std::string kept() const;  // which network a failure leaves behind
  void log_memory();
  TrainingState state();
  State loop_state();
  void set_loop_state(State state);

  Context& ctx_;
  Workers workers_;
  Trainable& task_;
  const ExperimentConfig& config_;
  const RunFolder& folder_;
  Log& log_;
  TrainingConfig training_;
  int64_t first_step_ = 0, steps_done_ = 0;  // of all trainings of this run: a warm start counts on
  int64_t saved_step_ = -1;                  // of the network that this training saved last
  int64_t state_step_ = -1;                  // of its state
  int64_t metrics_begin_ = 0;                // bytes in metrics.csv before this training's rows
  bool published_ = false;                   // config.toml names this training
  bool finished_ = false;                    // trained; the network is the one to evaluate
  double earlier_seconds_ = 0;
  int64_t system_calls_ = 0, last_growth_ = 0;  // of the allocators, and the step that needed memory last
  TrainingHistory history_;
  std::optional<Step> pending_;
  double best_loss_ = std::numeric_limits<double>::infinity();
  int64_t bad_validations_ = 0;
  std::map<std::string, Tensor> best_;
  Optimizer optimizer_;
  std::unique_ptr<Scheduler> scheduler_;
  std::optional<Ema> ema_;
};

}  // namespace lightcone

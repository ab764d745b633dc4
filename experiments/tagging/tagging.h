#pragma once
#include <memory>

#include "data/batches.h"
#include "data/jets.h"
#include "data/prefetcher.h"
#include "experiments/trainer.h"
#include "models/tagger.h"

namespace lightcone {

/// What an experiment's data demand of the network. jctagging has ten classes and, by data.features, scalars per constituent: default 10
/// (charge, particle type, displacements), pid 6, displacements 4, fourmomenta 0.
TaggingTask tagging_task(const ExperimentConfig& config);

/// The tagger that the configuration describes, in f32 or, with use_float64, f64.
std::unique_ptr<Tagger> build_tagger(Context& ctx, const ExperimentConfig& config, const TaggingTask& task);

/// Mean loss of one batch: binary cross entropy for one output (labels 0, 1), cross entropy for several.
Var tagging_loss(const Var& logits, const Tensor& labels);

/// Logits [N, num_outputs], row by row, of all jets in order. A jet's logits do not depend on the batch that it is in.
std::vector<double> tagger_logits(Context& ctx, Tagger& tagger, const JetSet& jets, int64_t batchsize,
                                  DType momentum_dtype);

/// Top tagging as the training loop sees it.
class TaggingTraining : public Trainable {
 public:
  TaggingTraining(Context& ctx, Tagger& tagger, const JetSet& train, const JetSet& validation,
                  const ExperimentConfig& config, uint64_t seed);
  Module& model() override { return tagger_; }
  int64_t batches_per_epoch() const override { return plan_.batches(); }
  void seek(BatchPosition position) override;
  BatchPosition position() const override { return position_; }
  Loss next_loss(Tape& tape) override;
  double validation_loss() override;

 private:
  Context& ctx_;
  Tagger& tagger_;
  const JetSet &train_, &validation_;
  int64_t evaluation_batch_;
  DType momentum_dtype_;
  BatchPlan plan_;
  BatchPosition position_;
  std::unique_ptr<Prefetcher<JetSet>> batches_;
};

struct RunOptions {
  bool resumes = false;       ///< goes on with the training that config.run_dir and run_idx name
  bool new_schedule = false;  ///< of a warm start (Trainer::warm_start)
};

/// Trains, evaluates, plots and reports, as the configuration says.
void run_tagging(Context& ctx, ExperimentConfig& config, Log& log, RunOptions options = {});

}  // namespace lightcone

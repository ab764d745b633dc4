#pragma once
#include <memory>

#include "autograd/weights.h"
#include "data/batches.h"
#include "data/jets.h"
#include "data/prefetcher.h"
#include "engine/workers.h"
#include "experiments/trainer.h"
#include "models/tagger.h"

namespace lightcone {

/// What an experiment's data demand of the network. jctagging has ten classes and, by data.features, scalars per
/// constituent: default 10 (charge, particle type, displacements), pid 6, displacements 4, fourmomenta 0.
TaggingTask tagging_task(const ExperimentConfig& config);

/// The tagger that the configuration describes, in f32 or, with use_float64, f64.
std::unique_ptr<Tagger> build_tagger(Context& ctx, const ExperimentConfig& config, const TaggingTask& task);

/// Mean loss of one batch: binary cross entropy for one output (labels 0, 1), cross entropy for several.
Var tagging_loss(const Var& logits, const Tensor& labels);

/// A batch is worked on in parts of this many jets: on a CPU about a thousand constituents, whose activations fit a
/// core's cache; on a GPU all.
inline int64_t jets_per_part(Device device) { return device == Device::cpu ? 16 : int64_t{1} << 30; }

/// What one part of a batch contributes to the batch's mean loss.
Var tagging_loss_share(Tagger& tagger, Tape& tape, const JetSet& part, int64_t batch_size);

/// Logits [N, num_outputs], row by row, of all jets in order, in batches of at most `batchsize`. A jet's logits do not
/// depend on the batch that it is in. `prepared` is that of the tagger as it stands.
std::vector<double> tagger_logits(Workers& workers, PreparedWeights& prepared, Tagger& tagger, const JetSet& jets,
                                  int64_t batchsize, DType momentum_dtype);

/// Top tagging as the training loop sees it.
class TaggingTraining : public Trainable {
 public:
  TaggingTraining(Context& ctx, Tagger& tagger, const JetSet& train, const JetSet& validation,
                  const ExperimentConfig& config, uint64_t seed);
  Module& model() override { return tagger_; }
  int64_t batches_per_epoch() const override { return plan_.batches(); }
  void seek(BatchPosition position) override;
  BatchPosition position() const override { return position_; }
  Batch next_batch() override;
  Var loss(Tape& tape, int64_t part) override;
  double validation_loss() override;

 private:
  Workers workers_;
  Tagger& tagger_;
  const JetSet &train_, &validation_;
  int64_t evaluation_batch_;
  DType momentum_dtype_;
  BatchPlan plan_;
  BatchPosition position_;
  std::unique_ptr<Prefetcher<std::vector<JetSet>>> batches_;
  std::vector<JetSet> batch_;
  int64_t batch_size_ = 0;
};

struct RunOptions {
  bool resumes = false;       ///< goes on with the training that config.run_dir and run_idx name
  bool new_schedule = false;  ///< of a warm start (Trainer::warm_start)
};

/// Trains, evaluates, plots and reports, as the configuration says.
void run_tagging(Context& ctx, ExperimentConfig& config, Log& log, RunOptions options = {});

}  // namespace lightcone

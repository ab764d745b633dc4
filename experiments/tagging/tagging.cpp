#include "experiments/tagging/tagging.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/loss.h"
#include "experiments/metrics.h"
#include "kernels/elementwise.h"
#include "models/registry.h"

namespace lightcone {

TaggingTask tagging_task(const ExperimentConfig& config) {
  if (config.exp_type == "jctagging") {
    const auto& f = config.data.features;
    return {.num_outputs = 10, .extra_scalars = f == "default" ? 10 : f == "pid" ? 6 : f == "displacements" ? 4 : 0};
  }
  return {};
}

std::unique_ptr<Tagger> build_tagger(Context& ctx, const ExperimentConfig& config, const TaggingTask& task) {
  return make_tagger(ctx, config.model, task, config.data, config.use_float64 ? DType::f64 : DType::f32);
}

Var tagging_loss(const Var& logits, const Tensor& labels) {
  if (logits.dim(1) > 1) return cross_entropy(logits, labels);
  Context& ctx = logits.context();
  Tensor targets = ctx.empty({logits.dim(0), 1}, logits.dtype());
  kernels::cast(ctx, labels.reshape({labels.numel(), 1}), targets);
  return bce_with_logits(logits, targets);
}

std::vector<double> tagger_logits(Context& ctx, Tagger& tagger, const JetSet& jets, int64_t batchsize,
                                  DType momentum_dtype) {
  std::vector<double> out;
  std::vector<int64_t> indices;
  for (int64_t begin = 0; begin < jets.size(); begin += batchsize) {
    indices.resize(std::min(batchsize, jets.size() - begin));
    std::iota(indices.begin(), indices.end(), begin);
    Tape tape(ctx, Tape::Mode::evaluate);
    const Tensor logits = tagger(tape, gather_jets(ctx, jets, indices, momentum_dtype)).value();
    Tensor wide = ctx.empty(logits.shape(), DType::f64);
    kernels::cast(ctx, logits, wide);
    out.insert(out.end(), wide.data<double>(), wide.data<double>() + wide.numel());
  }
  return out;
}

TaggingTraining::TaggingTraining(Context& ctx, Tagger& tagger, const JetSet& train, const JetSet& validation,
                                 const ExperimentConfig& config, uint64_t seed)
    : ctx_(ctx),
      tagger_(tagger),
      train_(train),
      validation_(validation),
      evaluation_batch_(config.evaluation.batchsize),
      momentum_dtype_(config.data.momentum_dtype()),
      plan_(train.size(), config.training.batchsize, seed) {}

void TaggingTraining::seek(BatchPosition position) {
  batches_.reset();
  position_ = position;
}

Trainable::Loss TaggingTraining::next_loss(Tape& tape) {
  if (!batches_)
    batches_ =
        std::make_unique<Prefetcher<JetSet>>([this, p = position_](Context& ctx) mutable -> std::optional<JetSet> {
          JetSet batch = gather_jets(ctx, train_, plan_.at(p), momentum_dtype_);
          p = plan_.next(p);
          return batch;
        });
  const JetSet batch = *batches_->next();
  position_ = plan_.next(position_);
  return {tagging_loss(tagger_(tape, batch), batch.labels), batch.size()};
}

double TaggingTraining::validation_loss() {
  const auto logits = tagger_logits(ctx_, tagger_, validation_, evaluation_batch_, momentum_dtype_);
  if (!std::all_of(logits.begin(), logits.end(), [](double v) { return std::isfinite(v); })) return std::nan("");
  const auto labels = validation_.labels.span<int64_t>();
  return binary_cross_entropy(std::vector<int>(labels.begin(), labels.end()), logits);
}

}  // namespace lightcone

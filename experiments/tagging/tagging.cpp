#include "experiments/tagging/tagging.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/elementwise.h"
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
  Context& ctx = logits.context();
  if (logits.dim(1) > 1) return cross_entropy(logits, ctx.here(labels));
  Tensor targets = ctx.host().empty({logits.dim(0), 1}, logits.dtype());
  kernels::cast(ctx.host(), labels.reshape({labels.numel(), 1}), targets);
  return bce_with_logits(logits, ctx.here(targets));
}

Var tagging_loss_share(Tagger& tagger, Tape& tape, const JetSet& part, int64_t batch_size) {
  const Var mean = tagging_loss(tagger(tape, part), part.labels);
  return part.size() == batch_size ? mean
                                   : scale(mean, static_cast<double>(part.size()) / static_cast<double>(batch_size));
}

std::vector<double> tagger_logits(Workers& workers, PreparedWeights& prepared, Tagger& tagger, const JetSet& jets,
                                  int64_t batchsize, DType momentum_dtype) {
  const int64_t step = std::clamp<int64_t>(batchsize, 1, jets_per_part(workers.main().device()));
  std::vector<double> out;
  workers.run((jets.size() + step - 1) / step,
              [&](Context& ctx, int64_t part) {
                std::vector<int64_t> indices(std::min(step, jets.size() - part * step));
                std::iota(indices.begin(), indices.end(), part * step);
                Tape tape(ctx, Tape::Mode::evaluate);
                tape.share(prepared);
                return tagger(tape, gather_jets(ctx.host(), jets, indices, momentum_dtype)).value();
              },
              [&](int64_t, const Tensor& logits) {
                Context& host = workers.main().host();
                Tensor wide = host.empty(logits.shape(), DType::f64);
                kernels::cast(host, host.here(logits), wide);
                out.insert(out.end(), wide.data<double>(), wide.data<double>() + wide.numel());
              });
  return out;
}

TaggingTraining::TaggingTraining(Context& ctx, Tagger& tagger, const JetSet& train, const JetSet& validation,
                                 const ExperimentConfig& config, uint64_t seed)
    : workers_(ctx),
      tagger_(tagger),
      train_(train),
      validation_(validation),
      evaluation_batch_(config.evaluation.batchsize),
      momentum_dtype_(config.data.momentum_dtype()),
      plan_(train.size(), config.training.batchsize, seed) {
  tagger_.standardise(ctx, gather_jets(ctx.host(), train_, plan_.at({}), momentum_dtype_));
}

void TaggingTraining::seek(BatchPosition position) {
  batches_.reset();
  position_ = position;
}

Trainable::Batch TaggingTraining::next_batch() {
  using Parts = std::vector<JetSet>;
  if (!batches_)
    batches_ =
        std::make_unique<Prefetcher<Parts>>([this, p = position_, size = jets_per_part(workers_.main().device())](
                                                Context& ctx) mutable -> std::optional<Parts> {
          Parts parts = gather_parts(ctx, train_, plan_.at(p), momentum_dtype_, size);
          p = plan_.next(p);
          return parts;
        });
  batch_ = *batches_->next();
  position_ = plan_.next(position_);
  tagger_.begin_batch(workers_.main());
  batch_size_ = 0;
  for (const JetSet& part : batch_) batch_size_ += part.size();
  return {.parts = static_cast<int64_t>(batch_.size()), .items = batch_size_};
}

Var TaggingTraining::loss(Tape& tape, int64_t part) {
  return tagging_loss_share(tagger_, tape, batch_[part], batch_size_);
}

double TaggingTraining::validation_loss() {
  PreparedWeights prepared(workers_.main());
  const auto logits = tagger_logits(workers_, prepared, tagger_, validation_, evaluation_batch_, momentum_dtype_);
  if (!std::all_of(logits.begin(), logits.end(), [](double v) { return std::isfinite(v); })) return std::nan("");
  const auto labels = validation_.labels.span<int64_t>();
  return binary_cross_entropy(std::vector<int>(labels.begin(), labels.end()), logits);
}

}  // namespace lightcone

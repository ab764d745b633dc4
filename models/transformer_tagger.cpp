#include "models/transformer_tagger.h"

#include "autograd/elementwise.h"
#include "autograd/segment.h"
#include "models/options.h"

namespace lightcone {

TransformerTagger::TransformerTagger(Context& ctx, const TransformerTaggerConfig& config, const TaggingTask& task,
                                     const EmbeddingConfig& embedding, DType dtype)
    : LlocaTagger(ctx, config.framesnet, task, embedding, config.reference_behaviour, dtype), config_(config) {
  check_attention_backend(config_.attention_backend);
  const int64_t in_channels = 7 + task.extra_scalars + 4 * config_.add_fourmomenta_backbone + !config_.mean_aggregation;
  derive("model.in_channels", config_.in_channels, in_channels);
  derive("model.net.in_channels", config_.net.in_channels, in_channels);
  derive("model.out_channels", config_.out_channels, task.num_outputs);
  derive("model.net.out_channels", config_.net.out_channels, task.num_outputs);
  net_ = std::make_unique<Transformer>(ctx, config_.net, dtype);
  add("net", *net_);
}

Var TransformerTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  Context& ctx = tape.context();
  tape.set_amp(config_.use_amp);
  const LocalJets local = local_jets(tape, jets, config_.add_fourmomenta_backbone, intermediates);
  Var x = local.features;
  Tensor ptr = local.ptr;
  Frames frames = local.frames;
  if (!config_.mean_aggregation) {
    ptr = prepend_ptr(ctx, local.ptr);
    frames = with_global_tokens(frames, ptr);
    const Var token = tape.constant(ctx.of({jets.size(), 1}, dtype(), std::vector<double>(jets.size(), 1.0)));
    const Var flag = prepend_rows(token, tape.constant(ctx.zeros({x.dim(0), 1}, dtype())), ptr);
    x = concat({prepend_rows(tape.constant(ctx.zeros({jets.size(), x.dim(1)}, dtype())), x, ptr), flag});
  }
  if (intermediates) (*intermediates)["net_in/inputs"] = x.value();
  const Var y = (*net_)(x, ptr, frames);
  return config_.mean_aggregation ? segment_mean(y, ptr) : first_rows(y, ptr);
}

}  // namespace lightcone

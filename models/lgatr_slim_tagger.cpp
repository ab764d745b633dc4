#include "models/lgatr_slim_tagger.h"

#include "models/options.h"

namespace lightcone {

LGATrSlimTagger::LGATrSlimTagger(Context& ctx, LGATrSlimTaggerConfig config, const TaggingTask& task,
                                 const EmbeddingConfig& embedding, DType dtype)
    : EquivariantTagger("L-GATr-slim", config.framesnet, embedding, config.mean_aggregation, dtype),
      config_(std::move(config)) {
  check_attention_backend(config_.attention_backend);
  derive("model.net.in_v_channels", config_.net.in_v_channels, 1);
  derive("model.net.in_s_channels", config_.net.in_s_channels, num_scalars(task));
  derive("model.net.out_v_channels", config_.net.out_v_channels, 0);
  derive("model.net.out_s_channels", config_.net.out_s_channels, task.num_outputs);
  derive("model.out_channels", config_.out_channels, task.num_outputs);
  net_ = std::make_unique<LGATrSlim>(ctx, config_.net, dtype);
  add("net", *net_);
}

Var LGATrSlimTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  tape.set_amp(config_.use_amp);
  const Tokens in = tokens(tape, jets);
  if (intermediates)
    (*intermediates)["net_in/vectors"] = in.momenta, (*intermediates)["net_in/scalars"] = in.scalars.value();
  return aggregate((*net_)({tape.constant(in.momenta), in.scalars}, in.ptr).scalars, in.ptr);
}

}  // namespace lightcone

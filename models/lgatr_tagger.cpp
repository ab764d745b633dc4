#include "models/lgatr_tagger.h"

#include "autograd/geometric_algebra.h"
#include "models/options.h"

namespace lightcone {

LGATrTagger::LGATrTagger(Context& ctx, LGATrTaggerConfig config, const TaggingTask& task,
                         const EmbeddingConfig& embedding, DType dtype)
    : EquivariantTagger("L-GATr", config.framesnet, embedding, config.mean_aggregation, dtype),
      config_(std::move(config)) {
  check_attention_backend(config_.attention_backend);
  if (config_.net.in_mv_channels != 1)
    fail("model", "model.net.in_mv_channels is {}, but a token has one momentum: expected 1",
         config_.net.in_mv_channels);
  derive("model.net.in_s_channels", config_.net.in_s_channels, num_scalars(task));
  derive("model.out_channels", config_.out_channels, task.num_outputs);
  derive("model.net.out_mv_channels", config_.net.out_mv_channels, task.num_outputs);
  net_ = std::make_unique<LGATr>(ctx, config_.net, dtype);
  add("net", *net_);
}

Var LGATrTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  tape.set_amp(config_.use_amp);
  const Tokens in = tokens(tape, jets);
  const Multivectors x = {embed(tape.constant(in.momenta), Blades::vector), in.scalars.dim(1) ? in.scalars : Var{}};
  if (intermediates) {
    (*intermediates)["net_in/multivectors"] = extract(x.mv, Blades::multivector).value();
    (*intermediates)["net_in/scalars"] = in.scalars.value();
  }
  return aggregate(scalar_part((*net_)(x, in.ptr).mv), in.ptr);
}

}  // namespace lightcone

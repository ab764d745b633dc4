#include "models/graphnet_tagger.h"

#include "autograd/edge_vectors.h"
#include "autograd/segment.h"
#include "models/options.h"

namespace lightcone {

GraphNetTagger::GraphNetTagger(Context& ctx, const GraphNetTaggerConfig& config, const TaggingTask& task,
                               const EmbeddingConfig& embedding, DType dtype)
    : LlocaTagger(ctx, config.framesnet, task, embedding, config.reference_behaviour, dtype), config_(config) {
  const int64_t in_channels = 7 + task.extra_scalars + 4 * config_.add_fourmomenta_backbone;
  derive("model.in_channels", config_.in_channels, in_channels);
  derive("model.net.in_channels", config_.net.in_channels, in_channels);
  derive("model.out_channels", config_.out_channels, task.num_outputs);
  derive("model.net.out_channels", config_.net.out_channels, task.num_outputs);
  if (config_.net.num_edge_attr == 0) config_.net.num_edge_attr.reset();
  derive("model.net.num_edge_attr", config_.net.num_edge_attr, config_.include_edges);
  net_ = std::make_unique<GraphNet>(ctx, config_.net, dtype);
  add("net", *net_);
  if (!config_.include_edges) return;
  edge_inited_.value = ctx.of({}, DType::boolean, std::vector<double>{0});
  edge_mean_.value = ctx.of({}, DType::f64, std::vector<double>{0});
  edge_std_.value = ctx.of({}, DType::f64, std::vector<double>{1});
  add("edge_inited", edge_inited_);
  add("edge_mean", edge_mean_);
  add("edge_std", edge_std_);
}

void GraphNetTagger::standardise(Context& ctx, const JetSet& batch) {
  LlocaTagger::standardise(ctx, batch);
  if (!config_.include_edges || edge_inited_.value.item() != 0) return;
  // Of momenta in the frames that the first step of training will see.
  Tape tape(ctx, Tape::Mode::evaluate);
  const LocalJets local = local_jets(tape, batch, false, nullptr);
  const EdgeStatistics found = edge_statistics(ctx, local.fourmomenta.value(), local.ptr);
  edge_mean_.value = ctx.of({}, DType::f64, std::vector<double>{found.mean});
  edge_std_.value = ctx.of({}, DType::f64, std::vector<double>{found.std});
  edge_inited_.value = ctx.of({}, DType::boolean, std::vector<double>{1});
}

Var GraphNetTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  const LocalJets local = local_jets(tape, jets, config_.add_fourmomenta_backbone, intermediates);
  Var edges;
  if (config_.include_edges) {
    if (edge_inited_.value.item() == 0)
      fail("GraphNet",
           "mean and spread of the edges' attributes are not known: they are measured on the first training batch; "
           "train the network or load a trained one");
    edges = edge_attributes(local.fourmomenta, local.ptr, edge_mean_.value.item(), edge_std_.value.item(), dtype());
  }
  if (intermediates) {
    (*intermediates)["net_in/inputs"] = local.features.value();
    if (config_.include_edges) (*intermediates)["net_in/edge_attr"] = edges.value();
  }
  return segment_mean((*net_)(local.features, local.ptr, local.frames, edges), local.ptr);
}

}  // namespace lightcone

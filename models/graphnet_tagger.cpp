#include "models/graphnet_tagger.h"

#include "autograd/edge_vectors.h"
#include "autograd/segment.h"
#include "models/options.h"

namespace lightcone {

GraphNetTagger::GraphNetTagger(Context& ctx, const GraphNetTaggerConfig& config, const TaggingTask& task,
                               const EmbeddingConfig& embedding, DType dtype)
    : LlocaTagger(ctx, config.framesnet, task, embedding, config.reference_behaviour, dtype),
      config_(config),
      edge_(ctx) {
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
  add("edge_inited", edge_.inited);
  add("edge_mean", edge_.mean);
  add("edge_std", edge_.std);
}

void GraphNetTagger::standardise(Context& ctx, const JetSet& batch) {
  LlocaTagger::standardise(ctx, batch);
  if (!config_.include_edges || edge_.inited.value.item() != 0) return;
  // Of momenta in the frames that the first step of training will see.
  Tape tape(ctx, Tape::Mode::evaluate);
  const LocalJets local = local_jets(tape, batch, false, nullptr);
  edge_.measure(ctx, local.fourmomenta.value(), local.ptr);
}

Var GraphNetTagger::operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) {
  const LocalJets local = local_jets(tape, jets, config_.add_fourmomenta_backbone, intermediates);
  Var edges;
  if (config_.include_edges) {
    const EdgeStatistics edge = edge_.statistics("GraphNet");
    edges = edge_attributes(local.fourmomenta, local.ptr, edge.mean, edge.std, dtype());
  }
  if (intermediates) {
    (*intermediates)["net_in/inputs"] = local.features.value();
    if (config_.include_edges) (*intermediates)["net_in/edge_attr"] = edges.value();
  }
  return segment_mean((*net_)(local.features, local.ptr, local.frames, edges), local.ptr);
}

}  // namespace lightcone

#pragma once
#include "models/equivectors.h"
#include "models/graphnet.h"
#include "models/lloca_tagger.h"

namespace lightcone {

/// Options of the `model` group with net.type = "GraphNet".
struct GraphNetTaggerConfig {
  std::optional<int64_t> in_channels, out_channels;  ///< derived from the task; not set by hand
  bool include_edges = false;             ///< ln (p_i + p_j)^2, momenta in their local frames, as edge attribute
  bool add_fourmomenta_backbone = false;  ///< E, px, py, pz (GeV) as four more inputs
  bool reference_behaviour = false;       ///< global random frames one for the whole batch, not one for each jet
  GraphNetConfig net;
  Json framesnet = Json::object();
  void fields(auto& f) {
    f("in_channels", in_channels), f("out_channels", out_channels), f("include_edges", include_edges);
    f("add_fourmomenta_backbone", add_fourmomenta_backbone), f("reference_behaviour", reference_behaviour);
    f("net", net), f("framesnet", framesnet);
  }
};

/// The GraphNet on jets: per constituent the features of LocalJets (lloca_tagger.h) -> logits per constituent, averaged
/// over the jet. Buffers, where edges have attributes: their mean and spread on the first training batch, and whether
/// they have been measured.
class GraphNetTagger : public LlocaTagger {
 public:
  GraphNetTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding,
                 DType dtype)
      : GraphNetTagger(ctx, fields_of<GraphNetTaggerConfig>(model, "model"), task, embedding, dtype) {}
  Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) override;
  void standardise(Context& ctx, const JetSet& batch) override;
  std::string title() const override { return "GraphNet"; }

 private:
  GraphNetTagger(Context& ctx, const GraphNetTaggerConfig& config, const TaggingTask& task,
                 const EmbeddingConfig& embedding, DType dtype);
  GraphNetTaggerConfig config_;
  std::unique_ptr<GraphNet> net_;
  PairStandard edge_;
};

}  // namespace lightcone

#pragma once
#include "models/embedding.h"
#include "models/tagger.h"
#include "models/transformer.h"

namespace lightcone {

/// Options of the `model` group with net.type = "Transformer".
struct TransformerTaggerConfig {
  std::optional<int64_t> in_channels, out_channels;  ///< derived from the task; not set by hand
  bool use_amp = false;                              ///< matrix products in bf16
  std::string attention_backend = "xformers";        ///< of the references; one attention serves all here
  bool add_fourmomenta_backbone = false;             ///< E, px, py, pz (GeV) as four more inputs
  bool mean_aggregation = true;                      ///< else the output of a global token in front of each jet
  bool reference_behaviour = false;                  ///< this network has no mistake of the references to reproduce
  TransformerConfig net;
  Json framesnet = Json::object();
  void fields(auto& f) {
    f("in_channels", in_channels), f("out_channels", out_channels), f("use_amp", use_amp),
        f("attention_backend", attention_backend);
    f("add_fourmomenta_backbone", add_fourmomenta_backbone), f("mean_aggregation", mean_aggregation);
    f("reference_behaviour", reference_behaviour), f("net", net), f("framesnet", framesnet);
  }
};

/// The Transformer on jets: per constituent [extra scalars, the 7 tagging features, (E, px, py, pz), (global-token flag)] -> logits per
/// constituent, averaged over the jet, or the logits of the global token (features zero, flag 1). With identity frames the spurions
/// (beams, time) that the embedding adds for frames networks are never seen, so they are not made.
class TransformerTagger : public Tagger {
 public:
  TransformerTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding,
                    DType dtype);
  Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) override;
  std::string title() const override { return "Transformer"; }

 private:
  TransformerTaggerConfig config_;
  EmbeddingConfig embedding_;
  DType dtype_;
  FrameTransform trafo_fourmomenta_;
  std::unique_ptr<Transformer> net_;
};

}  // namespace lightcone

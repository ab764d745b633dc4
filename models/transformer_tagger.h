#pragma once
#include "models/lloca_tagger.h"
#include "models/transformer.h"

namespace lightcone {

/// Options of the `model` group with net.type = "Transformer".
struct TransformerTaggerConfig {
  std::optional<int64_t> in_channels, out_channels;  ///< derived from the task; not set by hand
  bool use_amp = false;                              ///< matrix products in bf16
  std::string attention_backend = "xformers";        ///< of the references; one attention serves all here
  bool add_fourmomenta_backbone = false;             ///< E, px, py, pz (GeV) as four more inputs
  bool mean_aggregation = true;                      ///< else the output of a global token in front of each jet
  bool reference_behaviour = false;                  ///< mistakes of the references in frames, see framesnet.h
  TransformerConfig net;
  Json framesnet = Json::object();
  void fields(auto& f) {
    f("in_channels", in_channels), f("out_channels", out_channels), f("use_amp", use_amp),
        f("attention_backend", attention_backend);
    f("add_fourmomenta_backbone", add_fourmomenta_backbone), f("mean_aggregation", mean_aggregation);
    f("reference_behaviour", reference_behaviour), f("net", net), f("framesnet", framesnet);
  }
};

/// The Transformer on jets: per constituent the features of LocalJets (lloca_tagger.h), (global-token flag) -> logits
/// per constituent, averaged over the jet, or the logits of the global token (features zero, flag 1, frame the
/// identity).
class TransformerTagger : public LlocaTagger {
 public:
  TransformerTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding,
                    DType dtype)
      : TransformerTagger(ctx, fields_of<TransformerTaggerConfig>(model, "model"), task, embedding, dtype) {}
  Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) override;
  std::string title() const override { return "Transformer"; }

 private:
  TransformerTagger(Context& ctx, const TransformerTaggerConfig& config, const TaggingTask& task,
                    const EmbeddingConfig& embedding, DType dtype);
  TransformerTaggerConfig config_;
  std::unique_ptr<Transformer> net_;
};

}  // namespace lightcone

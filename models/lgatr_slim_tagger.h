#pragma once
#include "models/equivariant_tagger.h"
#include "models/lgatr_slim.h"

namespace lightcone {

/// Options of the `model` group with net.type = "LGATrSlim".
struct LGATrSlimTaggerConfig {
  std::optional<int64_t> out_channels;         ///< derived from the task; not set by hand
  bool use_amp = false;                        ///< matrix products in bf16
  std::string attention_backend = "xformers";  ///< of the references; one attention serves all here
  bool mean_aggregation = false;               ///< else the output of a global token in front of each jet
  bool reference_behaviour = false;            ///< this network has no mistake of the references to reproduce
  LGATrSlimConfig net;
  Json framesnet = Json::object();  ///< identity: the network itself is equivariant
  void fields(auto& f) {
    f("out_channels", out_channels), f("use_amp", use_amp), f("attention_backend", attention_backend);
    f("mean_aggregation", mean_aggregation), f("reference_behaviour", reference_behaviour);
    f("net", net), f("framesnet", framesnet);
  }
};

/// L-GATr-slim on the tokens of EquivariantTagger: the momentum as the one vector, their scalars.
class LGATrSlimTagger : public EquivariantTagger {
 public:
  LGATrSlimTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding,
                  DType dtype)
      : LGATrSlimTagger(ctx, fields_of<LGATrSlimTaggerConfig>(model, "model"), task, embedding, dtype) {}
  Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) override;
  std::string title() const override { return "L-GATr-slim"; }

 private:
  LGATrSlimTagger(Context& ctx, LGATrSlimTaggerConfig config, const TaggingTask& task, const EmbeddingConfig& embedding,
                  DType dtype);
  LGATrSlimTaggerConfig config_;
  std::unique_ptr<LGATrSlim> net_;
};

}  // namespace lightcone

#pragma once
#include "models/embedding.h"
#include "models/lgatr_slim.h"
#include "models/tagger.h"

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

/// L-GATr-slim on jets: per constituent its momentum / 20 GeV as the one vector, [extra scalars, tagging features, (global-token
/// flag)] as scalars; spurions (unscaled, scalars zero) are tokens like all others and alone break the symmetry. Logits are the
/// average over all tokens of a jet, spurions included, or those of the global token (all zero, flag 1) in front of them.
class LGATrSlimTagger : public Tagger {
 public:
  LGATrSlimTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding,
                  DType dtype);
  Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) override;
  std::string title() const override { return "L-GATr-slim"; }

 private:
  LGATrSlimTaggerConfig config_;
  EmbeddingConfig embedding_;
  DType dtype_;
  std::unique_ptr<LGATrSlim> net_;
};

}  // namespace lightcone

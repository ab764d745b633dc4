#pragma once
#include "models/embedding.h"
#include "models/lgatr.h"
#include "models/tagger.h"

namespace lightcone {

/// Options of the `model` group with net.type = "LGATr".
struct LGATrTaggerConfig {
  std::optional<int64_t> out_channels;         ///< derived from the task; not set by hand
  bool mean_aggregation = false;               ///< else the output of a global token in front of each jet
  bool use_amp = false;                        ///< matrix products in bf16
  std::string attention_backend = "xformers";  ///< of the references; one attention serves all here
  bool reference_behaviour = false;            ///< this network has no mistake of the references to reproduce
  LGATrConfig net;
  Json framesnet = Json::object();
  void fields(auto& f) {
    f("out_channels", out_channels), f("mean_aggregation", mean_aggregation), f("use_amp", use_amp);
    f("attention_backend", attention_backend), f("reference_behaviour", reference_behaviour);
    f("net", net), f("framesnet", framesnet);
  }
};

/// L-GATr on jets. Tokens are constituents and spurions (beams, time), which alone break the symmetry: multivectors with
/// the momentum (of constituents divided by 20 GeV) as vector, scalars [extra scalars, tagging features, (global-token
/// flag)]. Logits: the scalar component of the result, averaged over a jet's tokens (spurions included), or that of the
/// global token, whose momentum and features are zero.
class LGATrTagger : public Tagger {
 public:
  LGATrTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding, DType dtype);
  Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) override;
  std::string title() const override { return "LGATr"; }

 private:
  LGATrTaggerConfig config_;
  EmbeddingConfig embedding_;
  DType dtype_;
  std::unique_ptr<LGATr> net_;
};

}  // namespace lightcone

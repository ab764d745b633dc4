#pragma once
#include "models/equivariant_tagger.h"
#include "models/lgatr.h"

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

/// L-GATr on the tokens of EquivariantTagger: multivectors with the momentum as vector, their scalars. Logits are the
/// scalar components of the result.
class LGATrTagger : public EquivariantTagger {
 public:
  LGATrTagger(Context& ctx, const Json& model, const TaggingTask& task, const EmbeddingConfig& embedding, DType dtype)
      : LGATrTagger(ctx, fields_of<LGATrTaggerConfig>(model, "model"), task, embedding, dtype) {}
  Var operator()(Tape& tape, const JetSet& jets, Intermediates* intermediates) override;
  std::string title() const override { return "L-GATr"; }

 private:
  LGATrTagger(Context& ctx, LGATrTaggerConfig config, const TaggingTask& task, const EmbeddingConfig& embedding,
              DType dtype);
  LGATrTaggerConfig config_;
  std::unique_ptr<LGATr> net_;
};

}  // namespace lightcone

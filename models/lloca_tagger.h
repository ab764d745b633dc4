#pragma once
#include "models/embedding.h"
#include "models/frame_transform.h"
#include "models/framesnet.h"

namespace lightcone {

/// Constituents as they see themselves and their jet in their own frames; the spurions are gone.
struct LocalJets {
  Var features;     ///< [T, F] in the network's dtype: extra scalars, the 7 tagging features, (E, px, py, pz in GeV)
  Var fourmomenta;  ///< [T, 4] in the dtype of momenta
  Frames frames;    ///< of these constituents
  Tensor ptr;       ///< [B + 1]
};

/// What the LLoCa taggers have in common (Spinner et al., arXiv:2505.20280, section 5): jets get local frames from a
/// frames network, which sees the spurions, too; the backbone gets features that do not change with the laboratory.
/// State dict: framesnet.…, trafo_fourmomenta.…, and what the tagger adds.
class LlocaTagger : public Tagger {
 public:
  void standardise(Context& ctx, const JetSet& batch) override;
  void begin_batch(Context& ctx) override { framesnet_->begin_batch(ctx); }

 protected:
  LlocaTagger(Context& ctx, const Json& framesnet, const TaggingTask& task, const EmbeddingConfig& embedding,
              bool reference_behaviour, DType dtype);
  LocalJets local_jets(Tape& tape, const JetSet& jets, bool with_fourmomenta, Intermediates* intermediates);
  /// Frames for a network with one more token in front of each jet (offsets `longer`), whose frame is the identity.
  static Frames with_global_tokens(const Frames& frames, const Tensor& longer);
  DType dtype() const { return dtype_; }

 private:
  Embedding embed(Context& ctx, const JetSet& jets) const;
  EmbeddingConfig embedding_;
  DType dtype_;
  FrameTransform trafo_fourmomenta_;
  std::unique_ptr<FramesNet> framesnet_;
};

}  // namespace lightcone

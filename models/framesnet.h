#pragma once
#include <memory>

#include "models/tagger.h"

namespace lightcone {

/// Local frames of tokens: Lorentz transformations from the laboratory to each token's own frame (kernels/frames.h).
struct Frames {
  Var matrices;           ///< [T, 4, 4], f64; no value: the identity for all
  bool is_global = true;  ///< one for all tokens of a jet, so that nothing changes from token to token
  bool is_identity() const { return !matrices.value().defined(); }
};

/// What gives a network its local frames (Spinner et al., arXiv:2505.20280).
class FramesNet : public Module {
 public:
  /// The frames of identity: no tokens need to be looked at.
  virtual bool is_identity() const { return false; }
  /// They are predicted from tokens, so that scalars and spurions count.
  virtual bool is_learned() const { return false; }
  /// A token's own four-momentum is at rest in its frame.
  virtual bool is_rest_frame() const { return false; }
  /// fourmomenta [T, 4] in GeV, scalars [T, S] in the network's dtype, ptr [B + 1].
  virtual Frames operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr,
                            Intermediates* intermediates) = 0;
  /// Fixes what is measured on the first training batch; does nothing where that has been done.
  virtual void standardise(Context&, const Tensor& /*fourmomenta*/, const Tensor& /*ptr*/) {}
  /// Comes before every training batch.
  virtual void begin_batch(Context&) {}
};

/// The frames network that model.framesnet describes. `num_scalars`: S above. Throws Error on unknown keys and values,
/// NotInThisVersion on a network that this version does not have. `reference_behaviour`: global random frames are one
/// for the whole batch, as in the reference, and not one for each jet; networks of vectors likewise (equivectors.h).
std::unique_ptr<FramesNet> make_framesnet(Context& ctx, const Json& framesnet, int64_t num_scalars, DType dtype,
                                          bool reference_behaviour);

}  // namespace lightcone

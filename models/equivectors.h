#pragma once
#include <memory>

#include "models/tagger.h"

namespace lightcone {

/// Predicts n four-vectors for each token, which transform as the four-momenta do.
class Equivectors : public Module {
 public:
  /// fourmomenta [T, 4], scalars [T, S], ptr [B + 1] -> [T, n, 4] in the dtype of fourmomenta
  virtual Var operator()(const Var& fourmomenta, const Var& scalars, const Tensor& ptr) = 0;
  /// Fixes what is measured on the first training batch; does nothing where that has been done.
  virtual void standardise(Context&, const Tensor& /*fourmomenta*/, const Tensor& /*ptr*/) {}
  /// Draws the parameters again.
  virtual void initialise(Context& ctx) = 0;
};

/// What model.framesnet.equivectors describes. Throws Error on unknown keys and values, NotInThisVersion on a network
/// that this version does not have.
std::unique_ptr<Equivectors> make_equivectors(Context& ctx, const Json& options, int64_t num_vectors,
                                              int64_t num_scalars, DType dtype);

}  // namespace lightcone

#pragma once
#include <optional>

#include "autograd/lorentz_norm.h"

namespace lightcone {

struct ProjectionWeights {
  Var v, s, bias;  ///< of vectors, of scalars, and of scalars (Var{} = none)
};

struct ProjectionOptions {
  int64_t groups = 1;     ///< of channels, normalised each for itself
  bool normalise = true;  ///< what comes in
  double eps = 0.01;
  std::optional<DType> result = {};  ///< tape.factors() where products alone read it
};

/// Queries, keys and values of L-GATr-slim, normalised for each head; see kernels/normed_projection.h.
LorentzVar normed_projection(const LorentzVar& x, const ProjectionWeights& w, const ProjectionOptions& options);

}  // namespace lightcone

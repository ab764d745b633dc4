#pragma once
#include <optional>

#include "autograd/lorentz_norm.h"
#include "kernels/heads_projection.h"

namespace lightcone {

using kernels::HeadGroups;

struct ProjectionWeights {
  Var v, s, bias;  ///< of vectors, of scalars, and of scalars (Var{} = none)
};

struct ToHeadsOptions {
  HeadGroups groups;
  bool normalise = true;  ///< what comes in
  double eps = 0.01;
  std::optional<DType> result = {};  ///< tape.factors() where products alone read it
};

/// Queries, keys and values of L-GATr-slim, normalised for each head; see kernels/heads_projection.h.
Var project_to_heads(const LorentzVar& x, const ProjectionWeights& w, const ToHeadsOptions& options);

/// The heads' results as vectors and scalars; `residual` is added (LorentzVar{}: none).
LorentzVar project_from_heads(const Var& x, const ProjectionWeights& w, const LorentzVar& residual);

}  // namespace lightcone

#pragma once
#include "autograd/tape.h"

namespace lightcone {

/// Tokens with Lorentz vectors [T, 4, Cv], channels innermost, and scalars [T, Cs]. A part that nobody needs is Var{}.
struct LorentzVar {
  Var vectors, scalars;
};

/// Vectors and scalars divided by their joint norm, for each of `groups` groups of channels; see
/// kernels/lorentz_norm.h.
LorentzVar lorentz_norm(const LorentzVar& x, double eps, int64_t groups = 1);

}  // namespace lightcone
